package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
)

// cluster is a control plane, a tunnel and a site with one node.
type cluster struct {
	options *options
	pki     *pki
	front   string
	peer    string
	folder  string
	// 0 where there is one control plane, else which one of them it is.
	plane int

	programs programs
	server   *program
	agent    *program

	config     *rest.Config
	client     kubernetes.Interface
	aggregator aggregator.Interface
}

// limit is how long something that usually takes less may take here.
func (c *cluster) limit(usual time.Duration) time.Duration {
	return usual * time.Duration(c.options.patience)
}

// The ports of a control plane's programs, in this namespace; port says which ones of several planes.
const (
	apiPort    = 6443
	frontPort  = 8090
	agentPort  = 8091
	healthPort = 8092
	adminPort  = 8095
)

// The port of an agent's health, in the site's namespace; the next one has its metrics.
const agentHealthPort = 8093

func (c *cluster) port(usual int) int { return usual + 100*c.plane }

// start returns when everything is there and kube-apiserver reaches the node through the tunnel.
func (c *cluster) start(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.startServer(); err != nil {
		return err
	}
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	if c.options.tokens {
		if err := c.allowReviews(ctx); err != nil {
			return err
		}
	}
	if err := c.startSite(); err != nil {
		return err
	}
	if err := c.waitForAgent(ctx); err != nil {
		return err
	}
	// The webhook and the aggregated API are in the site.
	if err := c.createObjects(ctx); err != nil {
		return err
	}
	return until(ctx, c.limit(30*time.Second), "the node's kubelet, through the tunnel", func(ctx context.Context) error {
		_, err := c.raw(ctx, nodeProxy+"/healthz")
		return err
	})
}

func (c *cluster) stop() { c.programs.stopAll() }

// prepare makes the folder and the clients.
func (c *cluster) prepare() error {
	if err := os.MkdirAll(c.folder, 0o755); err != nil {
		return err
	}
	c.programs.folder = c.folder
	return c.connect()
}

func (c *cluster) startEtcd() error {
	_, err := c.programs.start("etcd", "", filepath.Join(c.options.kubernetes, "etcd"), "--data-dir="+filepath.Join(c.folder, "etcd"),
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn")
	return err
}

func (c *cluster) startAPIServer(ctx context.Context) error {
	egress := filepath.Join(c.folder, "egress.yaml")
	if err := c.writeEgress(egress); err != nil {
		return err
	}
	apiserver, err := c.programs.start("kube-apiserver", "", filepath.Join(c.options.kubernetes, "kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379", "--egress-selector-config-file="+egress,
		"--bind-address="+c.bindAddress(), fmt.Sprintf("--secure-port=%d", c.port(apiPort)), "--advertise-address="+c.options.cloudAddress, "--endpoint-reconciler-type=none",
		"--tls-cert-file="+c.pki.cert("kube-apiserver"), "--tls-private-key-file="+c.pki.key("kube-apiserver"),
		"--client-ca-file="+c.pki.cert("ca"), "--authorization-mode=RBAC", "--allow-privileged",
		"--kubelet-certificate-authority="+c.pki.cert("ca"), "--kubelet-client-certificate="+c.pki.cert("kubelet-client"),
		"--kubelet-client-key="+c.pki.key("kubelet-client"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.pki.key("service-accounts"),
		"--service-account-signing-key-file="+c.pki.key("service-accounts"), "--service-cluster-ip-range="+serviceNetwork,
		"--requestheader-client-ca-file="+c.pki.cert("front-proxy-ca"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--proxy-client-cert-file="+c.pki.cert("front-proxy-client"),
		"--proxy-client-key-file="+c.pki.key("front-proxy-client"),
		// No controller makes the service accounts that it asks for.
		"--disable-admission-plugins=ServiceAccount")
	if err != nil {
		return err
	}
	return until(ctx, 4*time.Minute, "kube-apiserver", func(ctx context.Context) error {
		_, err := c.raw(ctx, "/readyz")
		return err
	}, apiserver)
}

// bindAddress is kube-apiserver's: agents that count leases must reach it.
func (c *cluster) bindAddress() string {
	if c.plane > 0 {
		return "0.0.0.0"
	}
	return "127.0.0.1"
}

// connect makes the clients, and the kubeconfigs of kubectl and the tunnel's programs.
func (c *cluster) connect() error {
	for file, user := range map[string]struct{ host, certificate string }{
		c.kubeconfig():       {"127.0.0.1", "admin"},
		c.serverKubeconfig(): {"127.0.0.1", "proxy-server-client"},
		c.agentKubeconfig():  {c.options.cloudAddress, "proxy-agent-client"},
	} {
		if err := c.writeKubeconfig(file, user.host, user.certificate); err != nil {
			return err
		}
	}
	var err error
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig()); err != nil {
		return err
	}
	c.config.QPS = -1 // no limit
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	c.aggregator, err = aggregator.NewForConfig(c.config)
	return err
}

// writeKubeconfig is for a user with a client certificate.
func (c *cluster) writeKubeconfig(file, host, certificate string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["e2e"] = &clientcmdapi.Cluster{Server: fmt.Sprintf("https://%s:%d", host, c.port(apiPort)), CertificateAuthority: c.pki.cert("ca")}
	config.AuthInfos["user"] = &clientcmdapi.AuthInfo{ClientCertificate: c.pki.cert(certificate), ClientKey: c.pki.key(certificate)}
	config.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: "user", Namespace: namespace}
	config.CurrentContext = "e2e"
	return clientcmd.WriteToFile(*config, file)
}

func (c *cluster) kubeconfig() string { return filepath.Join(c.folder, "kubeconfig") }

func (c *cluster) serverKubeconfig() string {
	return filepath.Join(c.folder, "proxy-server-kubeconfig")
}

func (c *cluster) agentKubeconfig() string { return filepath.Join(c.folder, "proxy-agent-kubeconfig") }

// raw reads a path of the API.
func (c *cluster) raw(ctx context.Context, path string) (string, error) {
	answer, err := c.client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("GET %s: %w: %.200s", path, err, answer)
	}
	return string(answer), nil
}
