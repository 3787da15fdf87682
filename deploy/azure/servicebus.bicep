// The bus: topics with duplicate detection, a subscription for each service and for each site. No keys: local
// authentication is off, and the services make no entities (disableEntityManagement), so they may only send and receive.

param name string
param location string
param tier string
param topics object
param sites array
param principal string

var sender = '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39'
var receiver = '4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0'
var heard = flatten(map(topics.topics, topic => map(topic.subscriptions, one => { topic: topic.name, name: one })))
var heardBySites = flatten(map(topics.siteTopics, topic => map(sites, site => { topic: topic, name: site })))

resource bus 'Microsoft.ServiceBus/namespaces@2021-11-01' = {
  name: name
  location: location
  sku: { name: tier, tier: tier }
  properties: { disableLocalAuth: true, minimumTlsVersion: '1.2' }
}

resource topic 'Microsoft.ServiceBus/namespaces/topics@2021-11-01' = [
  for one in topics.topics: {
    parent: bus
    name: one.name
    properties: {
      requiresDuplicateDetection: true
      duplicateDetectionHistoryTimeWindow: topics.duplicateWindow
      enableBatchedOperations: true
      supportOrdering: false
    }
  }
]

resource subscription 'Microsoft.ServiceBus/namespaces/topics/subscriptions@2021-11-01' = [
  for one in concat(heard, heardBySites): {
    name: '${name}/${one.topic}/${one.name}'
    dependsOn: [topic]
    properties: {
      lockDuration: topics.lockDuration
      maxDeliveryCount: topics.maxDeliveryCount
      deadLetteringOnMessageExpiration: true
      enableBatchedOperations: true
      defaultMessageTimeToLive: 'P14D'
    }
  }
]

resource roles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in [sender, receiver]: {
    name: guid(bus.id, principal, role)
    scope: bus
    properties: {
      principalId: principal
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    }
  }
]

output name string = bus.name
