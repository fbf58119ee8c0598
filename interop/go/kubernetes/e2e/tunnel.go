package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
		argv = append(argv, c.leaseFlags()...)
	}
	if c.plane > 0 || c.options.tokens {
		argv = append(argv, "--kubeconfig="+c.serverKubeconfig())
	}
	if c.options.tokens {
		argv = append(argv, "--agent-namespace="+systemNamespace, "--agent-service-account="+agentAccount, "--authentication-audience="+audience)
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
	c.agent, err = c.startAgentAs("proxy-agent", c.tokenFile(), agentHealthPort)
	return err
}

// startAgentAs starts an agent that shows a token, or a certificate where there are no tokens. It uses the port for its
// health and the next one.
func (c *cluster) startAgentAs(name, token string, port int, more ...string) (*program, error) {
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
	argv = append(argv, more...)
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
		_, err := get(ctx, http.DefaultClient, c.port(healthPort), "/readyz")
		return err
	}, c.server, c.agent)
}

// get reads a page of a program of the tunnel, on loopback where the client is.
func get(ctx context.Context, client *http.Client, port int, page string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, page), nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// metric is the sum of all of a program's numbers of this name that have these labels, as in a="b".
func metric(ctx context.Context, client *http.Client, port int, name string, labels ...string) (float64, error) {
	text, err := get(ctx, client, port, "/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(text) {
		sample, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if sample != name && !strings.HasPrefix(sample, name+"{") {
			continue
		}
		found = true
		if slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(sample, label) }) {
			continue
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}
