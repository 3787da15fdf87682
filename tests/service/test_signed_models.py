"""A model is loaded only if a key that is trusted here has signed it; what was changed, moved or not signed is not."""

from pathlib import Path
from typing import Any

import pytest
import training
from conftest import Running, wait_until
from inferring import activated, inferring, model, of, serve, serving
from training import Rehearsal, train_first
from worlds import classifier, packaged

from services.contracts.events import Content, ModelActivated, ModelLoadFailed, ModelRegistered, SignedContent
from services.runtime.signing import NotTrusted, Signer, Verifier, make_keys

CLAIM = Content(uri="blob:models/default/a.json", sha256="a" * 64, bytes=2, media_type="application/json")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, "own")


def written(folder: Path, name: str) -> tuple[Path, Path]:
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    for path, key in zip(paths, make_keys(), strict=True):
        path.write_bytes(key)
    return paths


def test_a_signature_holds_for_its_project_its_manifest_and_its_key(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    good, verifier = Signer(private).signed("default", CLAIM), Verifier(public)
    verifier.check("default", good)
    assert good == Signer(private).signed("default", CLAIM)
    moved = good.model_copy(update={"uri": "blob:elsewhere"})
    verifier.check("default", moved)  # where it lies is not what it is
    assert good.signature is not None
    refused: list[tuple[str, SignedContent]] = [
        ("other", good),
        ("default", good.model_copy(update={"sha256": "b" * 64})),
        ("default", SignedContent.model_validate(CLAIM.model_dump())),
        ("default", good.model_copy(update={"signature": "?"})),
        ("default", good.model_copy(update={"signature": good.signature[:-8]})),
        ("default", Signer(written(tmp_path, "strange")[0]).signed("default", CLAIM)),
    ]
    for project, manifest in refused:
        with pytest.raises(NotTrusted):
            verifier.check(project, manifest)


def test_keys_can_be_replaced_and_a_file_without_one_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = written(tmp_path, "next")
    both = tmp_path / "both.pub"
    both.write_bytes(keys[1].read_bytes() + public.read_bytes())
    for key in (keys[0], private):
        Verifier(both).check("default", Signer(key).signed("default", CLAIM))
    (tmp_path / "none").write_text("no key")
    for wrong in (tmp_path / "none", keys[0]):
        with pytest.raises(ValueError, match="key"):
            Verifier(wrong)
    with pytest.raises(ValueError, match="key"):
        Signer(keys[1])


async def test_what_the_registry_says_is_signed(
    keys: tuple[Path, Path], tmp_path: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_MODEL_KEY", str(keys[0]))
    verifier = Verifier(keys[1])
    async with training.running(tmp_path, Rehearsal()) as one:
        await train_first(one)
        extractor = (await training.ask(one, "/v1/projects/default"))["extractor"]
        verifier.check("default", SignedContent.model_validate(extractor["manifest"]))
        story = await one.published()
        for kind in (ModelRegistered, ModelActivated):
            (event,) = of(kind, story)
            verifier.check("default", SignedContent.model_validate(event["manifest"]))
        assert ModelActivated.model_validate(await training.ask(one, "/v1/activation")) == ModelActivated(**event)
        shown = await training.ask(one, f"/v1/models/{event['version']}")
        verifier.check("default", SignedContent.model_validate(shown["manifest"]))


async def test_infer_loads_what_is_signed_and_nothing_else(
    keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFSURE_INFER_MODEL_KEYS", str(keys[1]))
    signer = Signer(keys[0])
    async with inferring(tmp_path) as running:
        first = await model(running)
        await serve(running, {**first, "manifest": signer.signed("default", first["manifest"])}, "mdl_1", 1)
        other = await packaged(running.blobs, "default", *classifier(-8.0))
        stranger = Signer(written(tmp_path, "strange")[0])
        attempts: list[dict[str, Any]] = [
            other,
            {**other, "manifest": stranger.signed("default", other["manifest"])},
            {**other, "manifest": signer.signed("elsewhere", other["manifest"])},
            # another artefact under a manifest that is signed
            {"artefact": other["artefact"], "manifest": signer.signed("default", first["manifest"])},
        ]
        for epoch, source in enumerate(attempts, 2):
            await running.published()
            await running.deliver(activated(source, f"mdl_{epoch}", epoch))
            assert await refusal(running), epoch
            assert await serving(running, "mdl_1")


async def test_a_tampered_artefact_is_not_loaded_and_the_old_one_goes_on(
    keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write the blob store, and say on the bus what is in it, still has no key."""
    monkeypatch.setenv("HALFSURE_INFER_MODEL_KEYS", str(keys[1]))
    signer = Signer(keys[0])
    async with inferring(tmp_path) as running:
        first = await model(running)
        await serve(running, {**first, "manifest": signer.signed("default", first["manifest"])}, "mdl_1", 1)
        good = await packaged(running.blobs, "default", *classifier(9.0))
        signed = {**good, "manifest": signer.signed("default", good["manifest"])}
        running.blobs.contents[good["artefact"].uri] = classifier(-9.0)[0]
        await running.published()
        await running.deliver(activated(signed, "mdl_2", 2))
        assert "sha256" in await refusal(running)
        assert await serving(running, "mdl_1")


async def refusal(running: Running) -> str:
    """What infer says of the version that it does not load."""
    told: list[dict[str, Any]] = []

    async def said() -> bool:
        told.extend(of(ModelLoadFailed, await running.published()))
        return bool(told)

    await wait_until(said)
    return told[0]["error"]
