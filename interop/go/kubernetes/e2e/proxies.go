package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
)

func proxyNode(ctx context.Context, c *cluster) (string, error) {
	got, err := c.succeed(ctx, webSocket, nil, "get", "--raw", nodeProxy+"/healthz")
	if err != nil {
		return "", err
	}
	if err := want("the kubelet's /healthz", "ok", got); err != nil {
		return "", err
	}
	got, err = c.raw(ctx, nodeProxy+"/pods")
	if err == nil && !strings.Contains(got, `"kind":"PodList"`) {
		err = want("the kubelet's /pods", "a PodList", got)
	}
	return "", err
}

// proxyTo asks the pod, or a service that leads to it, by kube-apiserver's proxy.
func proxyTo(target string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		name, err := c.succeed(ctx, webSocket, nil, "get", "--raw", target+"/proxy/name")
		if err != nil {
			return "", err
		}
		if err := want("the answer", "web at :8080", name); err != nil {
			return "", err
		}
		sent := make([]byte, 1_000_000)
		rand.Read(sent)
		got, err := c.client.CoreV1().RESTClient().Post().AbsPath(target + "/proxy/echo").Body(sent).DoRaw(ctx)
		if err != nil {
			return "", err
		}
		if !bytes.Equal(sent, got) {
			return "", fmt.Errorf("%d bytes back, not the %d that were sent", len(got), len(sent))
		}
		return "", nil
	}
}

// proxyClosed must fail soon, and over gRPC say why: the answer to a CONNECT has a status only.
func proxyClosed(ctx context.Context, c *cluster) (string, error) {
	_, err := c.raw(ctx, fmt.Sprintf("%sweb:%d/proxy/", podsPath, closedPort))
	if err == nil {
		return "", fmt.Errorf("a closed port answered")
	}
	if c.front == grpcUDS && !strings.Contains(err.Error(), "connection refused") {
		return "", fmt.Errorf("want an error with \"connection refused\": %w", err)
	}
	return "", nil
}
