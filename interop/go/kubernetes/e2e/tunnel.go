package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	grpcUDS    = "grpc-uds"
	connectUDS = "connect-uds"
	connectTLS = "connect-tls"

	ours      = "ours"
	reference = "go"
)

// allFronts are the ways in which kube-apiserver can reach a proxy-server.
var allFronts = []string{grpcUDS, connectUDS, connectTLS}

// writeEgress writes the file for kube-apiserver's --egress-selector-config-file.
func (c *cluster) writeEgress(file string) error {
	protocol, transport := "HTTPConnect", fmt.Sprintf("{uds: {udsName: %s}}", c.socket())
	switch c.front {
	case grpcUDS:
		protocol = "GRPC"
	case connectTLS:
		transport = fmt.Sprintf("{tcp: {url: 'https://127.0.0.1:%d', tlsConfig: {caBundle: %s, clientCert: %s, clientKey: %s}}}",
			c.port(frontPort), c.pki.cert("ca"), c.pki.cert("proxy-client"), c.pki.key("proxy-client"))
	}
	return os.WriteFile(file, fmt.Appendf(nil, `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: %s
    transport: %s
- name: controlplane
  connection: {proxyProtocol: Direct}
- name: etcd
  connection: {proxyProtocol: Direct}
`, protocol, transport), 0o644)
}

// socket has a short path: that of a Unix socket has at most 107 bytes.
func (c *cluster) socket() string { return filepath.Join(c.folder, "front.sock") }

func (c *cluster) tunnelProgram(name string) string {
	if c.peer == reference {
		return filepath.Join(c.options.reference, name)
	}
	return filepath.Join(c.options.ours, name)
}

func (c *cluster) startServer() error {
	argv := []string{
		c.tunnelProgram("proxy-server"),
		"--cluster-cert=" + c.pki.cert("proxy-server"), "--cluster-key=" + c.pki.key("proxy-server"),
		fmt.Sprintf("--agent-port=%d", c.port(agentPort)), fmt.Sprintf("--admin-port=%d", c.port(adminPort)),
		fmt.Sprintf("--health-port=%d", c.port(healthPort)), "--health-bind-address=127.0.0.1",
	}
	if c.plane > 0 {
		argv = append(argv, "--server-count=3", "--graceful-shutdown-timeout=30s")
	}
	if c.options.tokens {
		argv = append(argv, "--agent-namespace="+agentNamespace, "--agent-service-account="+agentAccount,
			"--authentication-audience="+audience, "--kubeconfig="+c.serverKubeconfig())
	} else {
		argv = append(argv, "--cluster-ca-cert="+c.pki.cert("ca"))
	}
	if c.front == grpcUDS {
		argv = append(argv, "--mode=grpc")
	} else {
		argv = append(argv, "--mode=http-connect")
	}
	if c.front == connectTLS {
		argv = append(argv, fmt.Sprintf("--server-port=%d", c.port(frontPort)), "--server-bind-address=127.0.0.1", "--server-cert="+c.pki.cert("proxy-server"),
			"--server-key="+c.pki.key("proxy-server"), "--server-ca-cert="+c.pki.cert("ca"))
	} else {
		argv = append(argv, "--server-port=0", "--uds-name="+c.socket(), "--delete-existing-uds-file")
	}
	argv = append(argv, c.congestionControl()...)
	var err error
	c.server, err = c.programs.start("proxy-server", "", argv...)
	return err
}

func (c *cluster) startAgent() error {
	var err error
	c.agent, err = c.startAgentAs("proxy-agent", c.tokenFile(), 8093)
	return err
}

// startAgentAs starts an agent that shows a token, or a certificate where there are no tokens. It uses the port for its
// health and the next one.
func (c *cluster) startAgentAs(name, token string, port int) (*program, error) {
	argv := []string{
		c.tunnelProgram("proxy-agent"), "--proxy-server-host=" + c.options.cloudAddress, fmt.Sprintf("--proxy-server-port=%d", agentPort),
		"--ca-cert=" + c.pki.cert("ca"), "--agent-id=" + name,
		fmt.Sprintf("--health-server-port=%d", port), fmt.Sprintf("--admin-server-port=%d", port+1),
	}
	if c.plane > 0 {
		argv = append(argv, "--sync-interval=500ms", "--sync-interval-cap=2s")
	}
	if c.options.tokens {
		argv = append(argv, "--service-account-token-path="+token)
	} else {
		argv = append(argv, "--agent-cert="+c.pki.cert("proxy-agent"), "--agent-key="+c.pki.key("proxy-agent"))
	}
	argv = append(argv, c.congestionControl()...)
	return c.programs.start(name, c.options.site, argv...)
}

func (c *cluster) congestionControl() []string {
	if c.peer == reference || c.options.quic == "" {
		return nil
	}
	return []string{"--quic-congestion-control=" + c.options.quic}
}

// waitForAgent waits until the server has the agent.
func (c *cluster) waitForAgent(ctx context.Context) error {
	return until(ctx, c.limit(30*time.Second), "the agent at the server", func(ctx context.Context) error {
		return answersOK(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz", c.port(healthPort)))
	}, c.server, c.agent)
}

func answersOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}
