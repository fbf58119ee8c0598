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

// threeServers has three control planes, each with a kube-apiserver and a proxy-server of its own, and one agent that
// finds the servers behind one address. While logs are followed and commands run through each of them, one server is
// drained and one is killed. Only what ran through the killed one may break.
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
	if err := startThree(ctx, planes); err != nil {
		return "", err
	}
	all := make([]*flows, len(planes))
	for number, plane := range planes {
		var err error
		if all[number], err = plane.startFlows(ctx); err != nil {
			return "", fmt.Errorf("plane %d: %w", number+1, err)
		}
	}
	kept, drained, killed := planes[0], planes[1], planes[2]
	killed.server.stop(syscall.SIGKILL)
	drained.server.signal(syscall.SIGTERM)

	fresh, failed := kept.execsUntil(ctx, all[0].done)
	broken := make([]int, len(planes))
	reasons := make([]error, len(planes))
	for number := range planes {
		broken[number], reasons[number] = all[number].wait()
	}
	note := fmt.Sprintf("broken of %d each: kept %d, drained %d, killed %d; %d new execs, %d failed",
		flowsOfEach, broken[0], broken[1], broken[2], fresh, failed)
	if broken[0]+broken[1]+failed > 0 {
		return note, errors.Join(errors.New("more broke than what ran through the killed server"), reasons[0], reasons[1])
	}
	if broken[2] == 0 {
		return note, errors.New("nothing ran through the killed server")
	}
	return note, nil
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

// startThree returns when commands run through each server.
func startThree(ctx context.Context, planes []*cluster) error {
	for number, plane := range planes {
		if err := plane.prepare(); err != nil {
			return err
		}
		if number == 0 {
			if err := plane.startEtcd(); err != nil {
				return err
			}
		}
		if err := plane.startServer(); err != nil {
			return err
		}
		if err := plane.startAPIServer(ctx); err != nil {
			return err
		}
	}
	if err := planes[0].startSite(); err != nil {
		return err
	}
	planes[1].agent, planes[2].agent = planes[0].agent, planes[0].agent
	for _, plane := range planes {
		if err := plane.waitForAgent(ctx); err != nil {
			return err
		}
	}
	if err := planes[0].createObjects(ctx); err != nil {
		return err
	}
	for _, plane := range planes {
		if err := until(ctx, plane.limit(30*time.Second), "a command through each server", plane.runsCommands); err != nil {
			return err
		}
	}
	return nil
}
