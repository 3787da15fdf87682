"""Which backend trains: the one that the setting names, imported only then."""

from services.retrain_trigger.backends import Backend
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings
from services.runtime.service import Service


def chosen(service: Service, settings: RetrainTriggerSettings) -> Backend:
    """Ends the process with a sentence when what the backend needs is not there."""
    if settings.backend == "kubernetes":
        from services.retrain_trigger.backends.kubernetes import KubernetesBackend

        return KubernetesBackend(lambda: service.blobs, settings)
    if settings.backend == "azureml" and AzureMlSettings().automl:
        from services.retrain_trigger.backends.azure_automl import AutoMlBackend

        return AutoMlBackend(lambda: service.blobs, settings)
    if settings.backend == "azureml":
        from services.retrain_trigger.backends.azureml import AzureMlBackend

        return AzureMlBackend(lambda: service.blobs, settings)
    if settings.backend == "webhook":
        from services.retrain_trigger.backends.webhook import WebhookBackend

        return WebhookBackend(lambda: service.blobs, settings)
    if settings.backend == "command":
        from services.retrain_trigger.backends.command import CommandBackend

        return CommandBackend(lambda uri: service.blobs.get(uri), service.settings.state_dir, settings)
    from services.retrain_trigger.backends.local import LocalBackend

    return LocalBackend(lambda uri: service.blobs.get(uri), service.settings.state_dir, settings)
