// Dials through the gRPC frontend of a proxy-server with the reference's client library, and says what worked.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/complaint"
)

var (
	uds   = flag.String("uds", "", "path of the frontend's Unix socket")
	tcp   = flag.String("tcp", "", "host:port of the frontend, instead of --uds; with --ca, --cert and --key")
	ca    = flag.String("ca", "", "certificate authority of the server")
	cert  = flag.String("cert", "", "certificate of this client")
	key   = flag.String("key", "", "its key")
	alone = flag.Bool("no-agent", false, "check only what a server without an agent answers")
	quick = flag.Bool("quick", false, "fewer tries")
)

func main() {
	flag.StringVar(&check.Only, "only", "", "only the checks that have this in their name")
	flag.Parse()
	frontend, err := newFrontend()
	if err != nil {
		fmt.Fprintln(os.Stderr, "konnectivity:", err)
		os.Exit(2)
	}
	check.Bound(time.Duration(tries(5, 20)) * time.Minute)
	complaint.Count()

	if *alone {
		checkNoAgent(frontend)
		check.Finish()
	}
	reusable, err := frontend.reusable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "konnectivity:", err)
		os.Exit(2)
	}
	ways := []way{{"single-use", frontend.single}, {"reusable", dialing(reusable)}}
	for _, way := range ways {
		checkEchoes(way)
		checkFailedDials(way)
		checkCancelledDial(way)
		checkBytes(way)
		checkPages(way)
		checkCloses(way)
	}
	checkManyAtOnce(ways[1])
	checkHeaderTables(frontend)
	for _, way := range ways {
		checkTargetsThatSpeakFirst(way)
	}
	for _, way := range ways {
		checkStalledReader(way)
	}
	check.Once("reusable: the connection ends when it is closed", reusable.Close)
	complaint.Note()
	check.Finish()
}

// tries is how often something is tried: often, unless the user is in a hurry.
func tries(hurried, thorough int) int {
	if *quick {
		return hurried
	}
	return thorough
}
