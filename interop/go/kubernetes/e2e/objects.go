package main

import (
	"context"
	"os"

	admission "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

const (
	namespace = "default"
	nodeName  = "site-node"
	// The same machine, registered as one with a kubelet before 1.36.
	olderNodeName = "older-node"
	adminUser     = "admin"

	nodeProxy = "/api/v1/nodes/" + nodeName + "/proxy"
	podsPath  = "/api/v1/namespaces/" + namespace + "/pods/"
	services  = "/api/v1/namespaces/" + namespace + "/services/"

	logLines = 10_000

	webPort, sumsPort, webhookPort, aggregatedPort = 8080, 9000, 8443, 8444
	// Nothing listens on it.
	closedPort = 9

	aggregatedGroup = "e2e.konnectivity-quic.invalid"
)

// pods are what the node runs. In a real cluster a scheduler and a kubelet would write what is written here.
func (c *cluster) pods() []v1.Pod {
	workload := func(name string, arguments ...string) v1.Container {
		return v1.Container{Name: name, Image: "none", Command: append([]string{c.options.workload}, arguments...)}
	}
	older := pod("older", "10.244.1.16", workload("web", "web", ":8081"))
	older.Spec.NodeName = olderNodeName
	console := v1.Container{Name: "console", Image: "none", Command: []string{"cat"}, Stdin: true}
	return []v1.Pod{
		older,
		pod("web", "10.244.1.10", workload("web", "web", ":8080"), workload("sums", "sums", ":9000")),
		pod("lines", "10.244.1.11", workload("lines", "lines", "10000")),
		pod("ticks", "10.244.1.12", workload("ticks", "ticks", "100")),
		pod("console", "10.244.1.13", console),
		pod("webhook", "10.244.1.14", workload("webhook", "webhook", ":8443", c.pki.cert("webhook"), c.pki.key("webhook"))),
		pod("api", "10.244.1.15", workload("api", "api", ":8444", c.pki.cert("api"), c.pki.key("api"), c.pki.cert("front-proxy-ca"))),
	}
}

func pod(name, address string, containers ...v1.Container) v1.Pod {
	made := v1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app": name}},
		Spec:       v1.PodSpec{NodeName: nodeName, Containers: containers},
		Status: v1.PodStatus{
			Phase: v1.PodRunning, HostIP: nodeAddress, PodIP: address, PodIPs: []v1.PodIP{{IP: address}},
			Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}},
		},
	}
	for _, container := range containers {
		made.Status.ContainerStatuses = append(made.Status.ContainerStatuses, v1.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: true,
			State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	return made
}

func podList(pods []v1.Pod) v1.PodList {
	return v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: pods}
}

// createObjects registers the node, its pods, their services, the webhook and the aggregated API.
func (c *cluster) createObjects(ctx context.Context) error {
	if err := c.createNode(ctx, nodeName, "ExtendWebSocketsToKubelet"); err != nil {
		return err
	}
	if err := c.createNode(ctx, olderNodeName); err != nil {
		return err
	}
	for _, wanted := range c.pods() {
		created, err := c.client.CoreV1().Pods(namespace).Create(ctx, &wanted, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		created.Status = wanted.Status
		if _, err := c.client.CoreV1().Pods(namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	for _, service := range []struct {
		name, clusterIP, podIP string
		port                   int32
	}{
		{"web", "10.96.0.10", "10.244.1.10", webPort},
		{"webhook", "10.96.0.14", "10.244.1.14", webhookPort},
		{"api", "10.96.0.15", "10.244.1.15", aggregatedPort},
	} {
		if err := c.createService(ctx, service.name, service.clusterIP, service.podIP, service.port); err != nil {
			return err
		}
	}
	return c.extend(ctx)
}

// createNode registers a node. A kubelet of this version declares that it speaks WebSocket, and then kube-apiserver
// passes WebSockets on as they are. For older ones it turns them into SPDY.
func (c *cluster) createNode(ctx context.Context, name string, features ...string) error {
	status := v1.NodeStatus{
		Addresses:        []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: nodeAddress}},
		Conditions:       []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		DaemonEndpoints:  v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: 10250}},
		DeclaredFeatures: features,
	}
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node, err := c.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status = status
	_, err = c.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func (c *cluster) createService(ctx context.Context, name, clusterIP, podIP string, port int32) error {
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.ServiceSpec{
			ClusterIP: clusterIP, Selector: map[string]string{"app": name}, Ports: []v1.ServicePort{{Port: port}},
		},
	}
	if _, err := c.client.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	ready, protocol, portName := true, v1.ProtocolTCP, ""
	slice := &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discovery.LabelServiceName: name}},
		AddressType: discovery.AddressTypeIPv4,
		Endpoints: []discovery.Endpoint{{
			Addresses: []string{podIP}, Conditions: discovery.EndpointConditions{Ready: &ready},
			// The pod of the same name: kube-apiserver's proxy goes to pods only.
			TargetRef: &v1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: name},
		}},
		Ports: []discovery.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
	}
	_, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

// extend lets kube-apiserver ask the webhook and the aggregated API.
func (c *cluster) extend(ctx context.Context) error {
	bundle, err := os.ReadFile(c.pki.cert("ca"))
	if err != nil {
		return err
	}
	port, path := int32(webhookPort), "/"
	effects, failure := admission.SideEffectClassNone, admission.Fail
	hook := &admission.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "e2e"},
		Webhooks: []admission.ValidatingWebhook{{
			Name: "webhook." + aggregatedGroup, SideEffects: &effects, FailurePolicy: &failure, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admission.WebhookClientConfig{
				CABundle: bundle,
				Service:  &admission.ServiceReference{Namespace: namespace, Name: "webhook", Port: &port, Path: &path},
			},
			// Not kube-apiserver's own objects.
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{v1.LabelMetadataName: namespace}},
			Rules: []admission.RuleWithOperations{{
				Operations: []admission.OperationType{admission.Create},
				Rule:       admission.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}
	if _, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, hook, metav1.CreateOptions{}); err != nil {
		return err
	}
	port = aggregatedPort
	service := &registration.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1." + aggregatedGroup},
		Spec: registration.APIServiceSpec{
			Group: aggregatedGroup, Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 10, CABundle: bundle,
			Service: &registration.ServiceReference{Namespace: namespace, Name: "api", Port: &port},
		},
	}
	_, err = c.aggregator.ApiregistrationV1().APIServices().Create(ctx, service, metav1.CreateOptions{})
	return err
}
