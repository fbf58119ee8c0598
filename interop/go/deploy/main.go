// deploy-check looks at rendered Kubernetes objects as an API server, an operator and the programs themselves would: every
// field is known, every name that is referred to is there, every argument is one of the programs'.
//
//	deploy-check objects [-server PROGRAM -agent PROGRAM] [-given NAME,NAME] FILE ...
//	deploy-check monitoring -metrics docs/metrics.md -operations docs/operations.md CHART
//	deploy-check readme [-write] CHART
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// problems are collected, so that one run tells all.
type problems struct{ found []string }

func (p *problems) add(format string, arguments ...any) {
	p.found = append(p.found, fmt.Sprintf(format, arguments...))
}

func main() {
	if len(os.Args) < 2 {
		fail("a command is needed: objects, monitoring or readme")
	}
	var p problems
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "objects":
		server := flags.String("server", "", "the proxy-server that must know its arguments")
		agent := flags.String("agent", "", "the proxy-agent that must know its arguments")
		given := flags.String("given", "kube-root-ca.crt", "ConfigMaps and Secrets that need not be there, with commas")
		_ = flags.Parse(os.Args[2:])
		programs := map[string]string{"proxy-server": *server, "proxy-agent": *agent}
		for _, file := range flags.Args() {
			checkFile(&p, file, programs, strings.Split(*given, ","))
		}
	case "monitoring":
		metrics := flags.String("metrics", "", "the document that lists the metrics")
		operations := flags.String("operations", "", "the document that says what each alert means")
		_ = flags.Parse(os.Args[2:])
		checkMonitoring(&p, flags.Arg(0), *metrics, *operations)
	case "readme":
		write := flags.Bool("write", false, "whether to write the tables anew")
		_ = flags.Parse(os.Args[2:])
		checkReadme(&p, flags.Arg(0), *write)
	default:
		fail("unknown command " + os.Args[1])
	}
	for _, problem := range p.found {
		fmt.Fprintln(os.Stderr, "deploy-check: "+problem)
	}
	if len(p.found) > 0 {
		os.Exit(1)
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "deploy-check: "+message)
	os.Exit(2)
}
