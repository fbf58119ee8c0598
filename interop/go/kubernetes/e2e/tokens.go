package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// What the reference's manifests have.
	agentNamespace = "kube-system"
	agentAccount   = "konnectivity-agent"
	serverUser     = "system:konnectivity-server"
	audience       = "system:konnectivity-server"
)

// allowReviews lets proxy-server review tokens, and makes the agents' account.
func (c *cluster) allowReviews(ctx context.Context) error {
	binding := &rbac.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: serverUser},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.UserKind, Name: serverUser}},
	}
	if _, err := c.client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, name := range []string{agentAccount, "stranger"} {
		account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		// kube-apiserver makes the namespace soon after its start.
		if err := until(ctx, c.limit(30*time.Second), "the service account "+name, func(ctx context.Context) error {
			_, err := c.client.CoreV1().ServiceAccounts(agentNamespace).Create(ctx, account, metav1.CreateOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	return c.writeToken(ctx, c.tokenFile(), agentAccount, audience)
}

func (c *cluster) tokenFile() string { return filepath.Join(c.folder, "agent-token") }

func (c *cluster) serverKubeconfig() string {
	return filepath.Join(c.folder, "proxy-server-kubeconfig")
}

// writeToken asks for a token as a kubelet does for a projected volume.
func (c *cluster) writeToken(ctx context.Context, file, account, audience string) error {
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{Audiences: []string{audience}}}
	answer, err := c.client.CoreV1().ServiceAccounts(agentNamespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(answer.Status.Token), 0o600)
}

// refused starts a second agent with a token that must not be accepted, and waits until its log says why.
func refused(account, audience, reason string) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		file := filepath.Join(c.folder, "refused-token")
		if err := c.writeToken(ctx, file, account, audience); err != nil {
			return "", err
		}
		name := "refused-" + account + strings.ReplaceAll(audience, ":", "-")
		agent, err := c.startAgentAs(name, file, 8193)
		if err != nil {
			return "", err
		}
		defer agent.stop(syscall.SIGKILL)
		return "", until(ctx, c.limit(20*time.Second), "the reason in the agent's log", func(context.Context) error {
			log, err := os.ReadFile(filepath.Join(c.folder, name+".log"))
			if err == nil && !bytes.Contains(log, []byte(reason)) {
				err = errors.New("it does not say " + reason)
			}
			return err
		})
	}
}
