// What the profile azure needs in a resource group. Not compiled or deployed yet: see docs/azure.md.
//
//   az deployment group create -g halfsure -f deploy/azure/main.bicep -p name=halfsure issuer=URL
//   halfsure check --profile azure --subscription ID --resource-group halfsure

@description('The beginning of every name; letters and digits, since a storage account takes no others.')
@minLength(3)
@maxLength(11)
param name string
param location string = resourceGroup().location

@description('The OIDC issuer of the cluster whose service accounts act as the identity; empty for none.')
param issuer string = ''
param namespace string = 'halfsure'

@description('Devices with an uplink; each has subscriptions of its own.')
param sites array = []

@description('Premium has private networks and messages of more than 256 KB, at about seventy times the base price.')
@allowed(['Standard', 'Premium'])
param serviceBusTier string = 'Standard'
param postgresSku string = 'Standard_B1ms'
@allowed(['Burstable', 'GeneralPurpose'])
param postgresTier string = 'Burstable'

@description('Also make an Azure ML workspace, for the training backend azureml, and tell the bus of its runs.')
param machineLearning bool = false

var topics = loadJsonContent('topics.json')
var unique = take(uniqueString(resourceGroup().id), 6)
// Who signs in as this identity: the service accounts of deploy/k8s are called halfsure-… .
var services = ['ingest', 'infer', 'select-uncertain', 'label-queue', 'retrain-trigger', 'training', 'portal']

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

// One at a time: Azure refuses federated credentials that are made side by side.
@batchSize(1)
resource federated 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = [
  for service in empty(issuer) ? [] : services: {
    parent: identity
    name: service
    properties: {
      issuer: issuer
      subject: 'system:serviceaccount:${namespace}:halfsure-${service}'
      audiences: ['api://AzureADTokenExchange']
    }
  }
]

module bus 'servicebus.bicep' = {
  name: 'servicebus'
  params: {
    name: '${name}-${unique}'
    location: location
    tier: serviceBusTier
    topics: topics
    sites: sites
    principal: identity.properties.principalId
  }
}

module stores 'stores.bicep' = {
  name: 'stores'
  params: {
    name: '${name}${unique}'
    location: location
    identityName: identity.name
    principal: identity.properties.principalId
    postgresSku: postgresSku
    postgresTier: postgresTier
  }
}

module training 'ml.bicep' = if (machineLearning) {
  name: 'ml'
  params: {
    name: '${name}-${unique}'
    location: location
    account: stores.outputs.accountId
    vault: stores.outputs.vaultId
    principal: identity.properties.principalId
    bus: bus.outputs.name
  }
}

output HALFSURE_SERVICEBUS_NAMESPACE string = '${bus.outputs.name}.servicebus.windows.net'
output HALFSURE_POSTGRES_CONNECTION string = 'host=${stores.outputs.postgresHost} user=${identity.name} dbname=halfsure sslmode=require'
output HALFSURE_POSTGRES_ENTRA string = 'true'
output HALFSURE_BLOBS string = stores.outputs.container
output HALFSURE_KEY_VAULT string = stores.outputs.vaultName
output AZURE_CLIENT_ID string = identity.properties.clientId
