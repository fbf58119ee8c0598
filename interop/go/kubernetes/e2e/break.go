package main

import (
	"fmt"
	"os/exec"
	"syscall"
)

const (
	// The agent is killed before the checks.
	breakAgent = "agent"
	// The kubelet spoils what goes through logs and streams.
	breakData = "data"
	// There is a route to the node beside the tunnel.
	breakRoute = "route"
	// Tokens that are to be refused are good ones.
	breakTokens = "tokens"
	// The server that is to drain is killed, too.
	breakDrain = "drain"
)

// allBreaks are ways to see that the checks can fail.
var allBreaks = []string{breakAgent, breakData, breakRoute, breakTokens, breakDrain}

// breakIt breaks what can be broken once everything runs.
func (c *cluster) breakIt() {
	switch c.options.broken {
	case breakAgent:
		c.agent.stop(syscall.SIGKILL)
	case breakRoute:
		// The device is that of the script; links have others.
		if said, err := exec.Command("ip", "route", "add", nodeAddress+"/32", "dev", "cloud").CombinedOutput(); err != nil {
			fmt.Printf("cannot add a route: %v: %s", err, said)
		}
	}
}

// kubeletFlags makes the kubelet spoil data if that is asked for.
func (c *cluster) kubeletFlags() []string {
	if c.options.broken == breakData {
		return []string{"--spoil"}
	}
	return nil
}
