// Azure ML for training, and its news of runs on the bus, as CloudEvents 1.0. Polling stays the truth; these are hints.

param name string
param location string
param account string
param vault string
param principal string
param bus string

var dataScientist = 'f6c7c914-8db3-469d-8ca1-694a8f32e121'
var sender = '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39'

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: { sku: { name: 'PerGB2018' }, retentionInDays: 30 }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: name
  location: location
  kind: 'web'
  properties: { Application_Type: 'web', WorkspaceResourceId: logs.id }
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2024-04-01' = {
  name: name
  location: location
  identity: { type: 'SystemAssigned' }
  properties: {
    storageAccount: account
    keyVault: vault
    applicationInsights: insights.id
    systemDatastoresAuthMode: 'identity'
  }
}

resource compute 'Microsoft.MachineLearningServices/workspaces/computes@2024-04-01' = {
  parent: workspace
  name: 'cpu'
  location: location
  identity: { type: 'SystemAssigned' }
  properties: {
    computeType: 'AmlCompute'
    properties: {
      vmSize: 'Standard_DS3_v2'
      scaleSettings: { minNodeCount: 0, maxNodeCount: 1, nodeIdleTimeBeforeScaleDown: 'PT5M' }
    }
  }
}

resource trainer 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(workspace.id, principal, dataScientist)
  scope: workspace
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', dataScientist)
  }
}

resource namespace 'Microsoft.ServiceBus/namespaces@2021-11-01' existing = {
  name: bus
}

resource news 'Microsoft.ServiceBus/namespaces/topics@2021-11-01' = {
  parent: namespace
  name: 'azureml-runs'
  properties: { requiresDuplicateDetection: true }
}

resource events 'Microsoft.EventGrid/systemTopics@2023-12-15-preview' = {
  name: name
  location: location
  identity: { type: 'SystemAssigned' }
  properties: { source: workspace.id, topicType: 'Microsoft.MachineLearningServices.Workspaces' }
}

resource maySend 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(news.id, events.id, sender)
  scope: news
  properties: {
    principalId: events.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', sender)
  }
}

resource runs 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2023-12-15-preview' = {
  parent: events
  name: 'runs'
  dependsOn: [maySend]
  properties: {
    eventDeliverySchema: 'CloudEventSchemaV1_0'
    filter: { includedEventTypes: ['Microsoft.MachineLearningServices.RunStatusChanged', 'Microsoft.MachineLearningServices.RunCompleted'] }
    deliveryWithResourceIdentity: {
      identity: { type: 'SystemAssigned' }
      destination: { endpointType: 'ServiceBusTopic', properties: { resourceId: news.id } }
    }
  }
}

output workspace string = workspace.name
