package main

import (
	"bufio"
	"bytes"
	"regexp"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func labelSet(set map[string]string) labels.Set { return set }

func bufferedReader(text []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(text)) }

var comment = regexp.MustCompile(`(?m)^\s*#.*$|^---.*$`)

func stripComments(document []byte) []byte { return comment.ReplaceAll(document, nil) }

var variable = regexp.MustCompile(`\$\(([A-Za-z_]+)\)`)

// checkWorkload looks at names within a pod and beyond it, and at what the pod may do to its machine.
func (o *objects) checkWorkload(pod workload) {
	if account := pod.spec.ServiceAccountName; account != "" && !o.names["ServiceAccount/"+pod.namespace+"/"+account] {
		o.complain(pod.name, "there is no ServiceAccount %s", account)
	}
	o.checkPodSecurity(pod)
	volumes := map[string]bool{}
	for _, volume := range pod.spec.Volumes {
		volumes[volume.Name] = false
		if secret := volume.Secret; secret != nil {
			o.checkGiven(pod, "Secret", secret.SecretName)
		}
		if config := volume.ConfigMap; config != nil {
			o.checkGiven(pod, "ConfigMap", config.Name)
		}
	}
	for _, container := range pod.spec.Containers {
		mounts := map[string]bool{}
		for _, mount := range container.VolumeMounts {
			if _, there := volumes[mount.Name]; !there {
				o.complain(pod.name, "there is no volume %s", mount.Name)
			}
			if mounts[mount.MountPath] {
				o.complain(pod.name, "two volumes are at %s", mount.MountPath)
			}
			volumes[mount.Name], mounts[mount.MountPath] = true, true
		}
		o.checkContainer(pod, container)
	}
	for name, used := range volumes {
		if !used {
			o.complain(pod.name, "nothing mounts the volume %s", name)
		}
	}
}

func (o *objects) checkGiven(pod workload, kind, name string) {
	if !o.names[kind+"/"+pod.namespace+"/"+name] && !o.given[name] {
		o.complain(pod.name, "there is no %s %s", kind, name)
	}
}

func (o *objects) checkContainer(pod workload, container core.Container) {
	for _, probe := range []*core.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			o.complain(pod.name, "a probe is missing")
			continue
		}
		if !hasPort(pod.spec, probe.HTTPGet.Port.String(), core.ProtocolTCP) {
			o.complain(pod.name, "there is no port %s for a probe", probe.HTTPGet.Port.String())
		}
	}
	environment := map[string]bool{}
	for _, entry := range container.Env {
		environment[entry.Name] = true
	}
	for _, argument := range container.Args {
		for _, name := range variable.FindAllStringSubmatch(argument, -1) {
			if !environment[name[1]] {
				o.complain(pod.name, "%s names a variable that is not there", argument)
			}
		}
	}
	security := container.SecurityContext
	if security == nil || security.AllowPrivilegeEscalation == nil || *security.AllowPrivilegeEscalation ||
		security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem || security.Privileged != nil ||
		security.Capabilities == nil || len(security.Capabilities.Drop) != 1 || security.Capabilities.Drop[0] != "ALL" ||
		len(security.Capabilities.Add) != 0 {
		o.complain(pod.name, "container %s has more rights than it needs", container.Name)
	}
}

func (o *objects) checkPodSecurity(pod workload) {
	security := pod.spec.SecurityContext
	if security == nil || security.SeccompProfile == nil || security.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		o.complain(pod.name, "it has no seccomp profile")
	}
	if security == nil || security.RunAsUser == nil || security.RunAsNonRoot == nil || (*security.RunAsUser != 0) != *security.RunAsNonRoot {
		o.complain(pod.name, "it does not say who it runs as")
	}
	if pod.spec.TerminationGracePeriodSeconds == nil || pod.spec.PriorityClassName == "" {
		o.complain(pod.name, "its grace period or its priority is missing")
	}
}

func hasPort(spec core.PodSpec, port string, protocol core.Protocol) bool {
	for _, container := range spec.Containers {
		for _, candidate := range container.Ports {
			if candidate.Name == port && candidate.Protocol == protocol {
				return true
			}
		}
	}
	return false
}
