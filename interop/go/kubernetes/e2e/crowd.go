package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// manyExecs runs 50 commands at once, half of them over SPDY, each with input and output.
func manyExecs(ctx context.Context, c *cluster) (string, error) {
	times := make([]time.Duration, 50)
	err := atOnce(len(times), func(number int) error {
		over := webSocket
		if number%2 == 1 {
			over = spdy
		}
		sent := make([]byte, 100_000)
		rand.Read(sent)
		start := time.Now()
		got, err := c.exec(ctx, over, sent, "sha256sum")
		times[number] = time.Since(start)
		if err != nil {
			return err
		}
		return want("what sha256sum says", fmt.Sprintf("%x  -\n", sha256.Sum256(sent)), got)
	})
	slices.Sort(times)
	return fmt.Sprintf("median %.2f s, last %.2f s", times[25].Seconds(), times[49].Seconds()), err
}

// exec runs a command by client-go, which takes less CPU than a kubectl, and gives back what it printed.
func (c *cluster) exec(ctx context.Context, over transport, stdin []byte, argv ...string) (string, error) {
	var stdout bytes.Buffer
	var input io.Reader
	if stdin != nil {
		input = bytes.NewReader(stdin)
	}
	err := c.execTo(ctx, over, input, &stdout, argv...)
	return stdout.String(), err
}

func (c *cluster) execTo(ctx context.Context, over transport, stdin io.Reader, stdout io.Writer, argv ...string) error {
	request := c.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name("web").SubResource("exec").
		VersionedParams(&v1.PodExecOptions{
			Container: "web", Command: argv, Stdin: stdin != nil, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec)
	var executor remotecommand.Executor
	var err error
	if over == webSocket {
		executor, err = remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, request.URL().String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(c.config, http.MethodPost, request.URL())
	}
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: &stderr})
	if err != nil {
		err = fmt.Errorf("%w; stderr: %.300s", err, stderr.String())
	}
	return err
}
