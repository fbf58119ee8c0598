package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/server"
)

// host is what the kubelet's server asks its kubelet. Statistics, which nothing here asks for, would panic, and the
// server would answer 500.
type host struct {
	server.HostInterface
	pods    []*v1.Pod
	runtime *processes
	streams streaming.Server
}

func (h *host) GetPods() []*v1.Pod { return h.pods }

func (h *host) GetRunningPods(context.Context) ([]*v1.Pod, error) { return h.pods, nil }

func (h *host) GetPodByName(namespace, name string) (*v1.Pod, bool) {
	for _, pod := range h.pods {
		if pod.Namespace == namespace && pod.Name == name {
			return pod, true
		}
	}
	return nil, false
}

func (h *host) SyncLoopHealthCheck(*http.Request) error { return nil }

func (h *host) GetExec(_ context.Context, pod string, _ types.UID, container string, command []string, options remotecommand.Options) (*url.URL, error) {
	id, err := h.container(pod, container)
	if err != nil {
		return nil, err
	}
	answer, err := h.streams.GetExec(&runtimeapi.ExecRequest{
		ContainerId: id, Cmd: command, Tty: options.TTY, Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr,
	})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

func (h *host) GetAttach(_ context.Context, pod string, _ types.UID, container string, options remotecommand.Options) (*url.URL, error) {
	id, err := h.container(pod, container)
	if err != nil {
		return nil, err
	}
	answer, err := h.streams.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: id, Tty: options.TTY, Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr,
	})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

func (h *host) GetPortForward(_ context.Context, name, namespace string, _ types.UID, options portforward.V4Options) (*url.URL, error) {
	pod, ok := h.GetPodByName(namespace, name)
	if !ok {
		return nil, fmt.Errorf("pod %s/%s is not on this node", namespace, name)
	}
	answer, err := h.streams.GetPortForward(&runtimeapi.PortForwardRequest{
		PodSandboxId: pod.Status.PodIP, Port: options.Ports,
	})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

// GetKubeletContainerLogs reads the container's log as a kubelet does: the file that the runtime writes, followed by
// the events of the file system.
func (h *host) GetKubeletContainerLogs(ctx context.Context, pod, container string, options *v1.PodLogOptions, stdout, stderr io.Writer) error {
	id, err := h.container(pod, container)
	if err != nil {
		return err
	}
	file := h.runtime.containers[id].logFile
	return logs.ReadLogs(ctx, file, id, logOptions(options), states{processes: h.runtime}, stdout, stderr)
}

func logOptions(options *v1.PodLogOptions) *logs.LogOptions {
	wanted := &logs.LogOptions{
		TailLines: options.TailLines, LimitBytes: options.LimitBytes, Follow: options.Follow, Timestamp: options.Timestamps,
	}
	if options.SinceSeconds != nil {
		wanted.Since = time.Now().Add(-time.Duration(*options.SinceSeconds) * time.Second)
	}
	if options.SinceTime != nil {
		wanted.Since = options.SinceTime.Time
	}
	return wanted
}

// container finds a container's id by the pod's full name, as the kubelet's server has it.
func (h *host) container(pod, container string) (string, error) {
	name, namespace, err := kubecontainer.ParsePodFullName(pod)
	if err != nil {
		return "", err
	}
	id := containerID(namespace, name, container)
	if h.runtime.containers[id] == nil {
		return "", fmt.Errorf("container %q is not in pod %s/%s on this node", container, namespace, name)
	}
	return id, nil
}

// states is as much of a CRI runtime as following a log needs.
type states struct {
	internalapi.RuntimeService
	processes *processes
}

func (s states) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	state := runtimeapi.ContainerState_CONTAINER_RUNNING
	if s.processes.containers[id].ended() {
		state = runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, State: state}}, nil
}
