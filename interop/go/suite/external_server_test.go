//go:build suite

// The reference's test suite runs the server within its own process. This file, put beside the tests in a copy of the
// reference's source, runs a proxy-server program instead when the flag -server-path names one, as the suite's own flag
// -agent-path does with proxy-agent. scripts/suite.sh makes the copy; nothing else builds this file.
package tests

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"

	serveropts "sigs.k8s.io/apiserver-network-proxy/cmd/server/app/options"
	metricstest "sigs.k8s.io/apiserver-network-proxy/pkg/testing/metrics"
	"sigs.k8s.io/apiserver-network-proxy/tests/framework"
)

const (
	serverHost = "127.0.0.1"
	// A server that has not ended so long after SIGTERM has failed its test. Most tests have ended their dials by then;
	// the reference, which waits for them without a limit, fails as well where one has not.
	serverEndsWithin = 20 * time.Second
	serverPoll       = 20 * time.Millisecond
	// The number of agents, by strategy. All tests use one strategy.
	readyBackends = "konnectivity_network_proxy_server_ready_backends"
)

func init() {
	flag.Func("server-path", "Path to the server binary to test against; without it the server runs in this process.", func(path string) error {
		Framework.ProxyServerRunner = &externalServerRunner{path: path}
		return nil
	})
}

type externalServerRunner struct{ path string }

// Start returns a server that answers on its health port.
func (r *externalServerRunner) Start(t testing.TB, opts framework.ProxyServerOpts) (framework.ProxyServer, error) {
	t.Helper()
	o, err := externalServerOptions(opts)
	if err != nil {
		return nil, err
	}
	// Every flag there is, as the suite does with the agent: the whole command line has to be understood.
	var args []string
	o.Flags().VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",") // String has brackets around it.
		}
		args = append(args, fmt.Sprintf("--%s=%s", f.Name, value))
	})
	s := &externalServer{
		t:      t,
		cmd:    exec.Command(r.path, args...),
		ended:  make(chan struct{}),
		health: "http://" + net.JoinHostPort(o.HealthBindAddress, strconv.Itoa(o.HealthPort)),
		agents: net.JoinHostPort(o.AgentBindAddress, strconv.Itoa(o.AgentPort)),
		front:  o.UdsName,
	}
	s.cmd.Stdout, s.cmd.Stderr = os.Stdout, os.Stderr
	// Nothing is left behind by tests that end the whole process.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the server: %w", err)
	}
	go func() {
		s.end = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(s.Stop)
	return s, s.waitUntilAlive()
}

// What the suite gives to its own server.
func externalServerOptions(opts framework.ProxyServerOpts) (*serveropts.ProxyRunOptions, error) {
	ports, err := framework.FreePorts(3)
	if err != nil {
		return nil, err
	}
	o := serveropts.NewProxyRunOptions()
	o.ServerCount = opts.ServerCount
	o.Mode = opts.Mode
	o.UdsName = filepath.Join(framework.CertsDir, "server-"+uuid.New().String()+".sock")
	o.ServerPort = 0
	o.ClusterCert = filepath.Join(framework.CertsDir, framework.TestServerCertFile)
	o.ClusterKey = filepath.Join(framework.CertsDir, framework.TestServerKeyFile)
	o.ClusterCaCert = filepath.Join(framework.CertsDir, framework.TestCAFile)
	o.AgentBindAddress, o.HealthBindAddress, o.AdminBindAddress = serverHost, serverHost, serverHost
	o.AgentPort, o.HealthPort, o.AdminPort = ports[0], ports[1], ports[2]
	if opts.AgentPort != 0 {
		o.AgentPort = opts.AgentPort
	}
	return o, nil
}

type externalServer struct {
	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
	end   error // Valid once ended is closed.

	health, agents, front string

	stop sync.Once
}

func (s *externalServer) waitUntilAlive() error {
	deadline := time.After(framework.ForeverTestTimeout)
	for s.status("/healthz") != http.StatusOK {
		select {
		case <-s.ended:
			return fmt.Errorf("the server ended before it served: %v", s.end)
		case <-deadline:
			return errors.New("the server never came up")
		case <-time.After(serverPoll):
		}
	}
	return nil
}

func (s *externalServer) status(path string) int {
	resp, err := http.Get(s.health + path)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	// Read to its end, so that the connection is kept: some tests take one that is made later, by Metrics, for a leak.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// Stop asks the server to end, and waits until it has: a test that starts the next one needs the port.
func (s *externalServer) Stop() {
	s.stop.Do(func() {
		select {
		case <-s.ended:
			s.t.Errorf("the server ended by itself: %v", s.end)
			return
		default:
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			s.t.Errorf("cannot stop the server: %v", err)
		}
		select {
		case <-s.ended:
			if s.end != nil {
				s.t.Errorf("the server's end after SIGTERM: %v", s.end)
			}
		case <-time.After(serverEndsWithin):
			s.t.Errorf("the server still runs %v after SIGTERM", serverEndsWithin)
			s.cmd.Process.Kill()
			<-s.ended
		}
	})
}

func (s *externalServer) AgentAddr() string { return s.agents }

func (s *externalServer) FrontAddr() string { return s.front }

func (s *externalServer) Ready() bool { return s.status("/readyz") == http.StatusOK }

func (s *externalServer) Metrics() metricstest.ServerTester {
	return &metricstest.Tester{Endpoint: s.health + "/metrics"}
}

func (s *externalServer) ConnectedBackends() (int, error) {
	resp, err := http.Get(s.health + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("the server's metrics cannot be read: %w", err)
	}
	samples := families[readyBackends].GetMetric()
	if len(samples) != 1 {
		return 0, fmt.Errorf("want one sample of %s, got %s", readyBackends, strings.TrimSpace(fmt.Sprint(samples)))
	}
	return int(samples[0].GetGauge().GetValue()), nil
}
