// Dials through a proxy-server as kube-apiserver does, with kube-apiserver's own egress dialer, under the HTTP transports
// that kube-apiserver puts on top of it, and says what worked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/component-base/metrics/legacyregistry"
	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/complaint"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

var (
	config = flag.String("config", "", "EgressSelectorConfiguration file, as for kube-apiserver's --egress-selector-config-file")
	quick  = flag.Bool("quick", false, "fewer tries")

	dial utilnet.DialFunc
	// Over HTTP CONNECT a refusal is a status and a half can be ended; over gRPC a refusal is the agent's text.
	connectProtocol bool
)

func main() {
	flag.StringVar(&check.Only, "only", "", "only the checks that have this in their name")
	flag.Parse()
	if err := clusterDialer(*config); err != nil {
		fmt.Fprintln(os.Stderr, "egress-dialer:", err)
		os.Exit(2)
	}
	// The dialer itself waits for the answer to its CONNECT without a limit.
	check.Bound(time.Duration(tries(5, 20)) * time.Minute)
	complaint.Count()

	checkRequests()
	checkWebSocket()
	checkExec()
	checkBanners()
	checkRefusals()
	if connectProtocol {
		checkHalfClose()
	}
	noteMetrics()
	complaint.Note()
	check.Finish()
}

// clusterDialer takes the steps of kube-apiserver's start: read, validate, build, look up.
func clusterDialer(file string) error {
	read, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		return err
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(read); len(errs) > 0 {
		return fmt.Errorf("%s is not valid: %w", file, errs.ToAggregate())
	}
	selector, err := egressselector.NewEgressSelector(read)
	if err != nil {
		return err
	}
	if selector == nil {
		return errors.New("--config names no selection")
	}
	dial, err = selector.Lookup(egressselector.Cluster.AsNetworkContext())
	if err == nil && dial == nil {
		err = fmt.Errorf("%s has no selection named cluster", file)
	}
	for _, selection := range read.EgressSelections {
		connectProtocol = connectProtocol || selection.Connection.ProxyProtocol == apiserver.ProtocolHTTPConnect
	}
	return err
}

// connect dials within the time that a try has.
func connect(address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), check.Patience)
	defer cancel()
	return dial(ctx, "tcp", address)
}

// tries is how often something is tried: often, unless the user is in a hurry.
func tries(hurried, thorough int) int {
	if *quick {
		return hurried
	}
	return thorough
}

// noteMetrics prints what kube-apiserver would expose about these dials.
func noteMetrics() {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		check.Note("metrics: %v", err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "apiserver_egress_dialer_") {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			slices.Sort(labels)
			count := metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			check.Note("%s{%s} %.0f", family.GetName(), strings.Join(labels, ","), count)
		}
	}
}
