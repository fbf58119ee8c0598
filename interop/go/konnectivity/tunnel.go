package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

// frontend is where the library connects to.
type frontend struct {
	address string
	options []grpc.DialOption
}

// way is one of the library's two ways to dial.
type way struct {
	name string
	dial func(ctx context.Context, address string) (net.Conn, error)
}

func newFrontend() (frontend, error) {
	if *uds != "" {
		// As kube-apiserver does it: the target is the raw path, which becomes a percent-encoded :authority.
		connect := func(ctx context.Context, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", *uds)
		}
		return frontend{*uds, []grpc.DialOption{
			grpc.WithContextDialer(connect),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
		}}, nil
	}
	if *tcp == "" {
		return frontend{}, errors.New("neither --uds nor --tcp")
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return frontend{}, fmt.Errorf("--cert and --key: %w", err)
	}
	authority, err := os.ReadFile(*ca)
	if err != nil {
		return frontend{}, fmt.Errorf("--ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return frontend{}, fmt.Errorf("--ca: no certificate in %s", *ca)
	}
	secure := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots})
	return frontend{*tcp, []grpc.DialOption{grpc.WithTransportCredentials(secure)}}, nil
}

// single dials over a connection of its own, which ends with the dial.
func (f frontend) single(ctx context.Context, address string) (net.Conn, error) {
	tunnel, err := client.CreateSingleUseGrpcTunnelWithContext(ctx, context.Background(), f.address, f.options...)
	if err != nil {
		return nil, err
	}
	return tunnel.DialContext(ctx, "tcp", address)
}

// reusable connects for many dials.
func (f frontend) reusable(more ...grpc.DialOption) (client.ReusableTunnel, error) {
	return client.CreateGRPCTunnel(context.Background(), f.address, append(more, f.options...)...)
}

func dialing(tunnel client.Tunnel) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return tunnel.DialContext(ctx, "tcp", address)
	}
}

// closed closes a dial. The library may say "tunnel closed" when the answer to its CLOSE_REQ and the end of the tunnel
// are both there before it looks: it then picks one at random.
func closed(conn net.Conn) error {
	err := conn.Close()
	if err != nil && err.Error() == "tunnel closed" {
		return nil
	}
	return err
}
