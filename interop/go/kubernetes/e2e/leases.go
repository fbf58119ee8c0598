package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	leaseLabel  = "k8s-app=konnectivity-server"
	leasePrefix = "konnectivity-proxy-server-"

	knownServers = "konnectivity_network_proxy_agent_known_server_count"
	openServers  = "konnectivity_network_proxy_agent_open_server_connections"
)

func (c *cluster) serverID() string { return fmt.Sprintf("server-%d", c.plane) }

// leaseFlags are those of a server that keeps a lease. Ours can say where it is, and need not take the reference's half a
// minute to be found dead.
func (c *cluster) leaseFlags() []string {
	flags := []string{"--enable-lease-controller", "--server-id=" + c.serverID(), "--graceful-shutdown-timeout=30s"}
	if c.peer != reference {
		flags = append(flags, fmt.Sprintf("--advertise-agent-addresses=%s:%d", c.options.cloudAddress, c.port(agentPort)),
			"--lease-duration=9s", "--lease-renew-interval=3s", "--lease-gc-interval=3s")
	}
	return flags
}

// deadAfter is how long the lease of a killed server may be there.
func (c *cluster) deadAfter() time.Duration {
	if c.peer == reference {
		return c.limit(75 * time.Second)
	}
	return c.limit(20 * time.Second)
}

// allowLeases gives servers and agents the rights that docs/leases.md names.
func (c *cluster) allowLeases(ctx context.Context) error {
	for user, verbs := range map[string][]string{
		serverUser: {"get", "create", "update", "delete", "list", "watch"},
		// The reference's agents need get as well.
		agentUser: {"get", "list", "watch"},
	} {
		name := strings.ReplaceAll(user, ":", "-") + "-leases"
		role := &rbac.Role{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Rules:      []rbac.PolicyRule{{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: verbs}},
		}
		binding := &rbac.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: name},
			Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.UserKind, Name: user}},
		}
		// kube-apiserver makes the namespace soon after its start.
		if err := until(ctx, c.limit(30*time.Second), "the role "+name, func(ctx context.Context) error {
			_, err := c.client.RbacV1().Roles(systemNamespace).Create(ctx, role, metav1.CreateOptions{})
			return err
		}); err != nil {
			return err
		}
		if _, err := c.client.RbacV1().RoleBindings(systemNamespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// leases are the servers that have one, in order.
func (c *cluster) leases(ctx context.Context) ([]string, error) {
	list, err := c.client.CoordinationV1().Leases(systemNamespace).List(ctx, metav1.ListOptions{LabelSelector: leaseLabel})
	if err != nil {
		return nil, err
	}
	var servers []string
	for _, lease := range list.Items {
		servers = append(servers, strings.TrimPrefix(lease.Name, leasePrefix))
	}
	slices.Sort(servers)
	return servers, nil
}

// hasLeases is an error unless exactly these servers have one.
func (c *cluster) hasLeases(ctx context.Context, wanted ...string) error {
	servers, err := c.leases(ctx)
	if err == nil && !slices.Equal(servers, wanted) {
		err = fmt.Errorf("leases: want those of %v, got those of %v", wanted, servers)
	}
	return err
}

// observer is an agent that is asked what it knows.
type observer struct {
	name   string
	client *http.Client
	port   int // of its metrics
	agent  *program
}

// knows is an error unless the agent counts so many servers and is connected to so many.
func (o *observer) knows(ctx context.Context, known, connected int) error {
	count, err := metric(ctx, o.client, o.port, knownServers)
	if err != nil {
		return err
	}
	open, err := metric(ctx, o.client, o.port, openServers)
	if err == nil && (int(count) != known || int(open) != connected) {
		err = fmt.Errorf("%s counts %.0f servers and is connected to %.0f; want %d and %d", o.name, count, open, known, connected)
	}
	return err
}

// agentsKnow waits until all agents know it.
func (c *cluster) agentsKnow(ctx context.Context, observers []*observer, limit time.Duration, known, connected int) error {
	for _, each := range observers {
		if err := until(ctx, limit, "what the agents know", func(ctx context.Context) error {
			return each.knows(ctx, known, connected)
		}, each.agent); err != nil {
			return err
		}
	}
	return nil
}

// startCounters starts the agents of three servers: one that counts leases, and beside it one of ours that is told by the
// servers. Ours that counts speaks gRPC, so that nobody tells it.
func (c *cluster) startCounters() ([]*observer, error) {
	counting := []string{"--count-server-leases", "--kubeconfig=" + c.agentKubeconfig()}
	agents := []struct {
		name string
		more []string
	}{{"proxy-agent", counting}}
	if c.peer != reference {
		agents[0].more = append(counting, "--transport=grpc")
		agents = append(agents, struct {
			name string
			more []string
		}{"told-agent", []string{"--transport=quic"}})
	}
	client := c.options.inSite()
	var observers []*observer
	for number, each := range agents {
		port := agentHealthPort + 10*number
		started, err := c.startAgentAs(each.name, c.tokenFile(), port, each.more...)
		if err != nil {
			return nil, err
		}
		observers = append(observers, &observer{each.name, client, port + 1, started})
	}
	c.agent = observers[0].agent
	return observers, nil
}

// leaves sees the lease of a server that drains go while its dials go on.
func (c *cluster) leaves(ctx context.Context, drained *cluster, f *flows) error {
	err := until(ctx, c.limit(5*time.Second), "the end of the drained server's lease", func(ctx context.Context) error {
		servers, err := c.leases(ctx)
		if err == nil && slices.Contains(servers, drained.serverID()) {
			err = errors.New("it is still there")
		}
		return err
	})
	select {
	case <-f.done:
		return errors.Join(err, errors.New("the drained server's dials were over before its lease was"))
	default:
		return err
	}
}
