package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	egress "k8s.io/apiserver/pkg/apis/apiserver/v1beta1"
	scheme "k8s.io/client-go/kubernetes/scheme"
)

// Strict: a field that a kind does not have, or that is there twice, is an error.
var decoder = func() runtime.Decoder {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoring.AddToScheme, egress.AddToScheme} {
		utilruntime.Must(add(all))
	}
	return serializer.NewCodecFactory(all, serializer.EnableStrict).UniversalDeserializer()
}()

// workload is a pod or what makes pods.
type workload struct {
	name, namespace string
	labels          map[string]string
	spec            core.PodSpec
}

// objects is what one file holds.
type objects struct {
	*problems
	file      string
	given     map[string]bool
	names     map[string]bool // kind/namespace/name
	workloads []workload
	all       []runtime.Object
}

func checkFile(p *problems, file string, programs map[string]string, given []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		p.add("%v", err)
		return
	}
	o := &objects{problems: p, file: file, given: map[string]bool{}, names: map[string]bool{}}
	for _, name := range given {
		o.given[name] = true
	}
	reader := yaml.NewYAMLReader(bufferedReader(text))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			p.add("%s: %v", file, err)
			return
		}
		if len(bytes.TrimSpace(stripComments(document))) > 0 {
			o.decode(document)
		}
	}
	if len(o.all) == 0 {
		p.add("%s: no object is in it", file)
	}
	for _, workload := range o.workloads {
		o.checkWorkload(workload)
		o.checkPrograms(workload, programs)
	}
	for _, object := range o.all {
		o.checkReferences(object)
	}
}

func (o *objects) complain(object, format string, arguments ...any) {
	o.add(o.file+": "+object+": "+format, arguments...)
}

func (o *objects) decode(document []byte) {
	object, kind, err := decoder.Decode(document, nil, nil)
	if err != nil {
		o.add("%s: %v in %.120q", o.file, err, strings.TrimSpace(string(document)))
		return
	}
	o.all = append(o.all, object)
	accessor, err := meta.Accessor(object)
	if err != nil {
		return // A configuration file, not an object of the API.
	}
	key := kind.Kind + "/" + accessor.GetNamespace() + "/" + accessor.GetName()
	if o.names[key] {
		o.add("%s: %s is there twice", o.file, key)
	}
	o.names[key] = true
	add := func(labels map[string]string, spec core.PodSpec) {
		o.workloads = append(o.workloads, workload{kind.Kind + " " + accessor.GetName(), accessor.GetNamespace(), labels, spec})
	}
	selected := func(selector *metav1.LabelSelector, template core.PodTemplateSpec) {
		if !matches(selector, template.Labels) {
			o.complain(key, "its selector does not match the labels of its pods")
		}
		add(template.Labels, template.Spec)
	}
	switch object := object.(type) {
	case *apps.DaemonSet:
		selected(object.Spec.Selector, object.Spec.Template)
	case *apps.Deployment:
		selected(object.Spec.Selector, object.Spec.Template)
	case *core.Pod:
		add(object.Labels, object.Spec)
	}
}

// checkReferences looks at what an object names.
func (o *objects) checkReferences(object runtime.Object) {
	switch object := object.(type) {
	case *core.Service:
		o.checkService(object)
	case *policy.PodDisruptionBudget:
		if len(o.selected(object.Namespace, object.Spec.Selector)) == 0 {
			o.complain("PodDisruptionBudget "+object.Name, "it selects nothing")
		}
	case *networking.NetworkPolicy:
		o.checkNetworkPolicy(object)
	case *rbac.ClusterRoleBinding:
		o.checkBinding("ClusterRoleBinding "+object.Name, "", object.RoleRef, object.Subjects)
	case *rbac.RoleBinding:
		o.checkBinding("RoleBinding "+object.Name, object.Namespace, object.RoleRef, object.Subjects)
	case *rbac.ClusterRole:
		o.checkRules("ClusterRole "+object.Name, object.Rules)
	case *rbac.Role:
		o.checkRules("Role "+object.Name, object.Rules)
	case *monitoring.ServiceMonitor:
		o.checkServiceMonitor(object)
	}
}

func (o *objects) checkService(service *core.Service) {
	name := "Service " + service.Name
	pods := o.selected(service.Namespace, &metav1.LabelSelector{MatchLabels: service.Spec.Selector})
	if len(pods) == 0 && !o.given["pods of "+service.Name] {
		o.complain(name, "it selects nothing")
	}
	for _, pod := range pods {
		for _, port := range service.Spec.Ports {
			if !hasPort(pod.spec, port.TargetPort.String(), port.Protocol) {
				o.complain(name, "%s has no %s port %s", pod.name, port.Protocol, port.TargetPort.String())
			}
		}
	}
}

func (o *objects) checkNetworkPolicy(policy *networking.NetworkPolicy) {
	name := "NetworkPolicy " + policy.Name
	pods := o.selected(policy.Namespace, &policy.Spec.PodSelector)
	if len(pods) == 0 {
		o.complain(name, "it selects nothing")
	}
	for _, pod := range pods {
		if pod.spec.HostNetwork {
			o.complain(name, "%s is in the machine's network, where policies do nothing", pod.name)
		}
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				if !hasPort(pod.spec, port.Port.String(), *port.Protocol) {
					o.complain(name, "%s has no %s port %s", pod.name, *port.Protocol, port.Port.String())
				}
			}
		}
	}
}

func (o *objects) checkBinding(name, namespace string, role rbac.RoleRef, subjects []rbac.Subject) {
	key := role.Kind + "//" + role.Name
	if role.Kind == "Role" {
		key = role.Kind + "/" + namespace + "/" + role.Name
	}
	if !o.names[key] {
		o.complain(name, "there is no %s", key)
	}
	for _, subject := range subjects {
		if key := "ServiceAccount/" + subject.Namespace + "/" + subject.Name; subject.Kind == "ServiceAccount" && !o.names[key] {
			o.complain(name, "there is no %s", key)
		}
	}
}

// checkRules: nothing of ours needs everything of something.
func (o *objects) checkRules(name string, rules []rbac.PolicyRule) {
	for _, rule := range rules {
		for _, word := range append(append(rule.Verbs, rule.Resources...), rule.APIGroups...) {
			if word == "*" || strings.HasSuffix(word, "/*") {
				o.complain(name, "it gives more than is needed: %v %v %v", rule.Verbs, rule.Resources, rule.APIGroups)
			}
		}
	}
}

func (o *objects) checkServiceMonitor(monitor *monitoring.ServiceMonitor) {
	name := "ServiceMonitor " + monitor.Name
	for _, object := range o.all {
		service, is := object.(*core.Service)
		if !is || service.Namespace != monitor.Namespace || !matches(&monitor.Spec.Selector, service.Labels) {
			continue
		}
		for _, endpoint := range monitor.Spec.Endpoints {
			found := false
			for _, port := range service.Spec.Ports {
				found = found || port.Name == endpoint.Port
			}
			if !found {
				o.complain(name, "Service %s has no port %s", service.Name, endpoint.Port)
			}
		}
		return
	}
	o.complain(name, "it selects nothing")
}

func (o *objects) selected(namespace string, selector *metav1.LabelSelector) (pods []workload) {
	for _, pod := range o.workloads {
		if pod.namespace == namespace && matches(selector, pod.labels) {
			pods = append(pods, pod)
		}
	}
	return pods
}

func matches(selector *metav1.LabelSelector, labels map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !parsed.Empty() && parsed.Matches(labelSet(labels))
}
