package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// check is one row of the table.
type check struct {
	name string
	// The note says what was measured.
	run func(context.Context, *cluster) (note string, err error)
}

var checks = []check{
	{"no way to the node but the tunnel", noRoute},
	{"logs, 10,000 lines", readLogs},
	{"logs -f", followLogs},
	{"exec, WebSocket: exit codes", exitCodes(webSocket, "web")},
	{"exec, SPDY: exit codes", exitCodes(spdy, "web")},
	{"exec, WebSocket, older kubelet: exit codes", exitCodes(webSocket, "older")},
	{"exec, WebSocket: 5 MB through stdin", throughStdin(webSocket)},
	{"exec, SPDY: 5 MB through stdin", throughStdin(spdy)},
	{"exec, WebSocket: output after the end of stdin", afterStdin(webSocket)},
	{"exec, SPDY: output after the end of stdin", afterStdin(spdy)},
	{"exec: much output", muchOutput},
	{"attach, WebSocket", attach(webSocket)},
	{"attach, SPDY", attach(spdy)},
	{"exec in a terminal, resized", terminal},
	{"port-forward, WebSocket: 20 at once", forwardMany(webSocket)},
	{"port-forward, SPDY: 20 at once", forwardMany(spdy)},
	{"port-forward: download", forwardDown},
	{"port-forward: upload, then the answer", forwardUp},
	{"port-forward to a closed port", forwardClosed},
	{"cp to a pod and back", copyBothWays},
	{"node proxy", proxyNode},
	{"pod proxy", proxyTo(podsPath + "web:8080")},
	{"service proxy", proxyTo(services + "web:8080")},
	{"pod proxy to a closed port", proxyClosed},
	{"validating webhook", askWebhook},
	{"aggregated API", askAggregated},
	{"50 execs at once", manyExecs},
	{"logs and execs beside a stalled exec", besideStalledReader},
	{"logs and execs beside a command that reads nothing", besideStalledWriter},
	// From here on something is killed.
	{"agent killed: execs hear of it", agentKilled},
	{"server killed: execs hear of it", serverKilled},
}

// tokenChecks are made where agents show tokens.
var tokenChecks = []check{
	{"token of another audience refused", refusal{
		account: agentAccount, audience: "another",
		reason: `token audiences ["another"] is invalid for the target audiences ["` + audience + `"]`,
	}.refused},
	{"token of another account refused", refusal{
		account: "stranger", audience: audience, user: "system:serviceaccount:" + systemNamespace + ":stranger",
		reason: `incoming request from "stranger" service account. Expected "` + agentAccount + `"`,
	}.refused},
}

// outcome is what a check came to.
type outcome struct {
	time time.Duration
	note string
	err  error
}

// wanted are the checks of this run.
func (o *options) wanted() []check {
	all := checks
	if o.tokens {
		all = slices.Concat(tokenChecks, checks)
	}
	return slices.DeleteFunc(slices.Clone(all), func(each check) bool { return !strings.Contains(each.name, o.only) })
}

// check runs them all, each within a limit.
func (c *cluster) check(ctx context.Context, column *column) {
	for _, each := range c.options.wanted() {
		limited, cancel := context.WithTimeout(ctx, c.limit(time.Minute))
		start := time.Now()
		note, err := each.run(limited, c)
		if limited.Err() != nil && err != nil {
			err = fmt.Errorf("not done within %s: %w", c.limit(time.Minute), err)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		column.add(each.name, outcome{time.Since(start), note, err})
	}
	if err := errors.Join(c.server.alive(), c.agent.alive()); err != nil {
		column.add("server and agent live on", outcome{err: err})
	}
}

// want is an error unless both are the same.
func want(what, wanted, got string) error {
	if wanted == got {
		return nil
	}
	return fmt.Errorf("%s: want %.200q, got %.200q", what, wanted, got)
}
