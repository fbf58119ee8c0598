package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const threeServersName = "three servers, one drained, one killed"

// threeServers has three control planes, each with a kube-apiserver and a proxy-server of its own that keeps a lease, and
// agents that find the servers behind one address: one that counts the leases and, of ours, one that the servers tell.
// While logs are followed and commands run through each server, one is drained and one is killed. Only what ran through
// the killed one may break, and leases and agents must follow.
func threeServers(ctx context.Context, o *options, pki *pki, front, peer string) (string, error) {
	planes := make([]*cluster, 3)
	for number := range planes {
		folder := filepath.Join(o.work, fmt.Sprintf("%s-%s-%d", front, peer, number+1))
		planes[number] = &cluster{options: o, pki: pki, front: front, peer: peer, plane: number + 1, folder: folder}
		defer planes[number].stop()
	}
	if err := balance(ctx, planes); err != nil {
		return "", err
	}
	defer exec.Command("nft", "delete", "table", "ip", "e2e").Run()
	agents, err := startThree(ctx, planes)
	if err != nil {
		return "", err
	}
	all := make([]*flows, len(planes))
	for number, plane := range planes {
		if all[number], err = plane.startFlows(ctx); err != nil {
			return "", fmt.Errorf("plane %d: %w", number+1, err)
		}
	}
	kept, drained, killed := planes[0], planes[1], planes[2]
	killed.server.stop(syscall.SIGKILL)
	if o.broken == breakDrain {
		drained.server.signal(syscall.SIGKILL)
	}
	drained.server.signal(syscall.SIGTERM)
	since := time.Now()
	problems := []error{kept.leaves(ctx, drained, all[1])}

	fresh, failed := kept.execsUntil(ctx, all[0].done)
	broken := make([]int, len(planes))
	for number := range planes {
		var reason error
		broken[number], reason = all[number].wait()
		if reason != nil && planes[number] != killed {
			problems = append(problems, fmt.Errorf("plane %d: %w", number+1, reason))
		}
	}
	note := fmt.Sprintf("broken of %d each: kept %d, drained %d, killed %d; %d new execs, %d failed",
		flowsOfEach, broken[0], broken[1], broken[2], fresh, failed)
	if broken[0]+broken[1]+failed > 0 {
		problems = append(problems, errors.New("more broke than what ran through the killed server"))
	}
	if broken[2] == 0 {
		problems = append(problems, errors.New("nothing ran through the killed server"))
	}
	if err := kept.leftAlone(ctx, drained, agents); err != nil {
		return note, errors.Join(append(problems, err)...)
	}
	note += fmt.Sprintf("; one lease and one server for the agents after %.0f s", time.Since(since).Seconds())
	return note, errors.Join(problems...)
}

// leftAlone waits until the drained server has ended, nothing but the lease of this one is left, and the agents know.
func (c *cluster) leftAlone(ctx context.Context, drained *cluster, agents []*observer) error {
	select {
	case <-drained.server.done:
		if code := drained.server.command.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("the drained server has ended with code %d", code)
		}
	case <-time.After(c.limit(40 * time.Second)):
		return errors.New("the drained server has not ended by itself")
	}
	if err := until(ctx, c.deadAfter(), "the end of the killed server's lease", func(ctx context.Context) error {
		return c.hasLeases(ctx, c.serverID())
	}); err != nil {
		return err
	}
	return c.agentsKnow(ctx, agents, c.limit(40*time.Second), 1, 1)
}

// balance makes this namespace the load balancer in front of the servers, for TCP and UDP: each new connection of the
// agents goes to one of them by chance.
func balance(ctx context.Context, planes []*cluster) error {
	ports := make([]string, len(planes))
	for number, plane := range planes {
		ports[number] = fmt.Sprintf("%d : %d", number, plane.port(agentPort))
	}
	rules := "table ip e2e {\n chain prerouting {\n  type nat hook prerouting priority dstnat;\n"
	for _, protocol := range []string{"tcp", "udp"} {
		rules += fmt.Sprintf("  %s dport %d redirect to :numgen random mod %d map { %s }\n",
			protocol, agentPort, len(planes), strings.Join(ports, ", "))
	}
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules + " }\n}\n")
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, said)
	}
	return nil
}

// startThree returns when there are three leases, all agents know and have three servers, and commands run through each.
func startThree(ctx context.Context, planes []*cluster) ([]*observer, error) {
	for number, plane := range planes {
		if err := plane.prepare(); err != nil {
			return nil, err
		}
		if number == 0 {
			if err := plane.startEtcd(); err != nil {
				return nil, err
			}
		}
		if err := plane.startAPIServer(ctx); err != nil {
			return nil, err
		}
		if number == 0 {
			if err := plane.allowAll(ctx); err != nil {
				return nil, err
			}
		}
		if err := plane.startServer(); err != nil {
			return nil, err
		}
	}
	first := planes[0]
	if err := first.startKubelet(); err != nil {
		return nil, err
	}
	agents, err := first.startCounters()
	if err != nil {
		return nil, err
	}
	planes[1].agent, planes[2].agent = first.agent, first.agent
	if err := until(ctx, first.limit(30*time.Second), "the servers' leases", func(ctx context.Context) error {
		return first.hasLeases(ctx, planes[0].serverID(), planes[1].serverID(), planes[2].serverID())
	}); err != nil {
		return nil, err
	}
	if err := first.agentsKnow(ctx, agents, first.limit(60*time.Second), 3, 3); err != nil {
		return nil, err
	}
	if err := first.createObjects(ctx); err != nil {
		return nil, err
	}
	for _, plane := range planes {
		if err := until(ctx, plane.limit(30*time.Second), "a command through each server", plane.runsCommands); err != nil {
			return nil, err
		}
	}
	return agents, nil
}

// allowAll gives the tunnel the rights that it needs with leases, and with tokens where they are used.
func (c *cluster) allowAll(ctx context.Context) error {
	if err := c.allowLeases(ctx); err != nil || !c.options.tokens {
		return err
	}
	return c.allowReviews(ctx)
}
