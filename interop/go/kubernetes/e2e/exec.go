package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
)

func exitCodes(over transport, pod string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		for _, code := range []int{0, 3, 255} {
			got, err := c.kubectl(ctx, over, nil, "exec", pod, "-c", "web", "--", "sh", "-c",
				fmt.Sprintf("echo to stdout; echo to stderr >&2; exit %d", code))
			if err != nil {
				return "", err
			}
			if err := errors.Join(
				want("exit code", fmt.Sprint(code), fmt.Sprint(got.code)),
				want("stdout", "to stdout\n", got.stdout),
			); err != nil {
				return "", fmt.Errorf("%w; stderr: %s", err, got.stderr)
			}
			// kubectl adds its own words to it.
			if !strings.HasPrefix(got.stderr, "to stderr\n") {
				return "", want("stderr", "to stderr\n", got.stderr)
			}
		}
		return "", nil
	}
}

// throughStdin sends bytes whose sum the command says once it has all of them, and so has heard of the end.
func throughStdin(over transport) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		sent := make([]byte, 5_000_000)
		rand.Read(sent)
		got, err := c.succeed(ctx, over, bytes.NewReader(sent), "exec", "-i", "web", "-c", "web", "--", "sha256sum")
		if err != nil {
			return "", err
		}
		return "", want("what sha256sum says", fmt.Sprintf("%x  -\n", sha256.Sum256(sent)), got)
	}
}

// afterStdin has a command that says most after its input has ended.
func afterStdin(over transport) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		got, err := c.kubectl(ctx, over, strings.NewReader("the input\n"), "exec", "-i", "web", "-c", "web", "--", "sh", "-c",
			"cat; for number in 1 2 3; do sleep 0.3; echo $number; done; exit 7")
		if err != nil {
			return "", err
		}
		return "", errors.Join(
			want("stdout", "the input\n1\n2\n3\n", got.stdout),
			want("exit code", "7", fmt.Sprint(got.code)),
		)
	}
}

func muchOutput(ctx context.Context, c *cluster) (string, error) {
	lines := c.size(2_000_000, 500_000)
	start := time.Now()
	got, err := c.succeed(ctx, webSocket, nil, "exec", "web", "-c", "web", "--", "seq", fmt.Sprint(lines))
	if err != nil {
		return "", err
	}
	rate := megabytes(len(got), start)
	var wanted bytes.Buffer
	for number := range lines {
		fmt.Fprintln(&wanted, number+1)
	}
	if got != wanted.String() {
		return "", fmt.Errorf("%d bytes came, not the %d that were sent", len(got), wanted.Len())
	}
	return rate, nil
}

// attach talks with a container whose process sends back what it hears.
func attach(over transport) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		kubectl, err := c.beside(ctx, over, "attach", "-i", "console", "-c", "console")
		if err != nil {
			return "", err
		}
		defer kubectl.end()
		heard := bufio.NewScanner(kubectl.stdout)
		for number := range 3 {
			said := fmt.Sprintf("word %d", number)
			if _, err := fmt.Fprintln(kubectl.stdin, said); err != nil {
				return "", err
			}
			if !heard.Scan() {
				return "", fmt.Errorf("no answer; kubectl said: %s", kubectl.stderr)
			}
			if err := want("the answer", said, heard.Text()); err != nil {
				return "", err
			}
		}
		return "", nil
	}
}
