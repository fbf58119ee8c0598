// Puts a tunnel between a real kube-apiserver and a node's kubelet API, lets kubectl and client-go go through it, and
// says what worked. scripts/e2e-kubernetes.sh builds what it needs and runs it inside of the control plane's network
// namespace.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

type options struct {
	kubernetes string
	ours       string
	reference  string
	workload   string
	kubelet    string

	site         string
	cloudAddress string

	fronts list
	peers  list
	only   string
	quick  bool
	tokens bool
	quic   string
	// What is broken on purpose, so that checks must fail.
	broken string
	// How much longer than on a good network a check may take.
	patience int
	work     string
	document document
}

func main() {
	var o options
	flag.StringVar(&o.kubernetes, "kubernetes", "", "folder of etcd, kube-apiserver and kubectl")
	flag.StringVar(&o.ours, "ours", "", "folder of this project's proxy-server and proxy-agent")
	flag.StringVar(&o.reference, "go", "", "folder of the Go reference's proxy-server and proxy-agent")
	flag.StringVar(&o.kubelet, "kubelet", "", "the program that is the node's kubelet API")
	flag.StringVar(&o.workload, "workload", "", "the program that the pods run")
	flag.StringVar(&o.site, "site", "", "network namespace of the node")
	flag.StringVar(&o.cloudAddress, "cloud-address", "", "this namespace's address on the cable to the site")
	flag.Var(&o.fronts, "front", "front ends, of "+strings.Join(allFronts, ", "))
	flag.Var(&o.peers, "peer", "tunnels: ours, go")
	flag.StringVar(&o.only, "only", "", "only the checks that have this in their name")
	flag.BoolVar(&o.quick, "quick", false, "less data and less waiting")
	flag.StringVar(&o.quic, "quic", "", "congestion control of this project's programs")
	flag.BoolVar(&o.tokens, "tokens", false, "agents show service account tokens instead of certificates")
	flag.StringVar(&o.broken, "break", "", "what to break on purpose: "+strings.Join(allBreaks, ", "))
	flag.IntVar(&o.patience, "patience", 1, "so many times the usual limits of time")
	flag.StringVar(&o.work, "work", "", "folder for logs and files")
	flag.StringVar(&o.document.file, "document", "", "Markdown file to write the table into")
	flag.StringVar(&o.document.part, "document-part", "", "which part of it")
	flag.StringVar(&o.document.madeBy, "made-by", "", "what the document says of the table")
	flag.Parse()
	if o.broken != "" && !slices.Contains(allBreaks, o.broken) {
		fmt.Fprintln(os.Stderr, "e2e: --break has one of", strings.Join(allBreaks, ", "))
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, &o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// run makes one cluster for each pair of front end and tunnel, one after the other. It is false when a check of our own
// tunnel failed.
func run(ctx context.Context, o *options) (bool, error) {
	log, err := os.Create(filepath.Join(o.work, "client-go.log"))
	if err != nil {
		return false, err
	}
	// What the client library says of connections that break goes beside the programs' logs.
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(log))))
	if err := addSiteAddresses(o.site); err != nil {
		return false, err
	}
	pki, err := newPKI(filepath.Join(o.work, "pki"), o)
	if err != nil {
		return false, err
	}
	var results table
	for _, front := range o.fronts {
		for _, peer := range o.peers {
			if ctx.Err() != nil {
				results.print(os.Stdout)
				return false, ctx.Err()
			}
			fmt.Printf("\n== %s, %s\n", front, peer)
			runOne(ctx, o, pki, results.column(front, peer))
		}
	}
	results.print(os.Stdout)
	if err := o.document.write(&results); err != nil {
		return false, err
	}
	return results.good(), ctx.Err()
}

// runOne fills a column of the table.
func runOne(ctx context.Context, o *options, pki *pki, column *column) {
	if len(o.wanted()) > 0 {
		c := &cluster{options: o, pki: pki, front: column.front, peer: column.peer, folder: filepath.Join(o.work, column.front+"-"+column.peer)}
		start := time.Now()
		if err := c.start(ctx); err != nil {
			column.add("start", outcome{time: time.Since(start), err: err})
		} else {
			fmt.Printf("ready after %.1f s\n", time.Since(start).Seconds())
			c.breakIt()
			c.check(ctx, column)
		}
		c.stop()
	}
	if strings.Contains(threeServersName, o.only) && ctx.Err() == nil {
		start := time.Now()
		note, err := threeServers(ctx, o, pki, column.front, column.peer)
		column.add(threeServersName, outcome{time.Since(start), note, err})
	}
}

// list is a flag of words with commas between them.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(allFronts, word) && word != ours && word != reference {
			return fmt.Errorf("unknown: %s", word)
		}
		*l = append(*l, word)
	}
	return nil
}
