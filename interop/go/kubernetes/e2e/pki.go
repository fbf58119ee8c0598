package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/keyutil"
)

// pki is a folder with NAME.crt and NAME.key: the cluster's certificates, the tunnel's among them.
type pki struct {
	folder string
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func (p *pki) cert(name string) string { return filepath.Join(p.folder, name+".crt") }
func (p *pki) key(name string) string  { return filepath.Join(p.folder, name+".key") }

// newPKI issues what a cluster has, each certificate for both ways to be used.
func newPKI(folder string, o *options) (*pki, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	p := &pki{folder: folder}
	cluster, err := p.authority("ca")
	if err != nil {
		return nil, err
	}
	frontProxy, err := p.authority("front-proxy-ca")
	if err != nil {
		return nil, err
	}
	masters := []string{"system:masters"}
	for _, wanted := range []struct {
		name      string
		authority *authority
		subject   pkix.Name
		hosts     []string
	}{
		{"kube-apiserver", cluster, pkix.Name{CommonName: "kube-apiserver"}, []string{"127.0.0.1", "localhost", o.cloudAddress}},
		{"kubelet-client", cluster, pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: masters}, nil},
		{"admin", cluster, pkix.Name{CommonName: adminUser, Organization: masters}, nil},
		{"front-proxy-client", frontProxy, pkix.Name{CommonName: "front-proxy-client"}, nil},
		{"kubelet", cluster, pkix.Name{CommonName: "system:node:" + nodeName}, []string{nodeAddress}},
		{"proxy-server", cluster, pkix.Name{CommonName: "proxy-server"}, []string{o.cloudAddress, "127.0.0.1"}},
		{"proxy-client", cluster, pkix.Name{CommonName: "kube-apiserver"}, nil},
		{"proxy-server-client", cluster, pkix.Name{CommonName: serverUser}, nil},
		{"proxy-agent-client", cluster, pkix.Name{CommonName: agentUser}, nil},
		{"proxy-agent", cluster, pkix.Name{CommonName: "proxy-agent"}, nil},
		{"webhook", cluster, pkix.Name{CommonName: "webhook"}, []string{"webhook." + namespace + ".svc"}},
		{"api", cluster, pkix.Name{CommonName: "api"}, []string{"api." + namespace + ".svc"}},
	} {
		if err := p.issue(wanted.name, wanted.authority, wanted.subject, wanted.hosts); err != nil {
			return nil, err
		}
	}
	return p, p.serviceAccountKey()
}

func (p *pki) authority(name string) (*authority, error) {
	template := template(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := p.write(name, template, &authority{template, key}, key); err != nil {
		return nil, err
	}
	return &authority{template, key}, nil
}

func (p *pki) issue(name string, by *authority, subject pkix.Name, hosts []string) error {
	template := template(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return p.write(name, template, by, key)
}

func (p *pki) write(name string, template *x509.Certificate, by *authority, key *ecdsa.PrivateKey) error {
	signed, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	if err := os.WriteFile(p.cert(name), text, 0o644); err != nil {
		return err
	}
	return p.writeKey(p.key(name), key)
}

// serviceAccountKey makes the key that kube-apiserver signs and verifies service accounts' tokens with.
func (p *pki) serviceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return p.writeKey(p.key("service-accounts"), key)
}

func (p *pki) writeKey(file string, key *ecdsa.PrivateKey) error {
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func template(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
}
