package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	systemNamespace = "kube-system"
	agentAccount    = "konnectivity-agent"
	agentUser       = "system:konnectivity-agent"
	serverUser      = "system:konnectivity-server"
	audience        = "system:konnectivity-server"
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
			_, err := c.client.CoreV1().ServiceAccounts(systemNamespace).Create(ctx, account, metav1.CreateOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	return c.writeToken(ctx, c.tokenFile(), agentAccount, audience)
}

func (c *cluster) tokenFile() string { return filepath.Join(c.folder, "agent-token") }

// writeToken asks for a token as a kubelet does for a projected volume.
func (c *cluster) writeToken(ctx context.Context, file, account, audience string) error {
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{Audiences: []string{audience}}}
	answer, err := c.client.CoreV1().ServiceAccounts(systemNamespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(answer.Status.Token), 0o600)
}

// refusal is a token that must not be accepted.
type refusal struct {
	account, audience string
	// What kube-apiserver says of the token when it is asked for the server's audience; empty: it does not know it.
	user string
	// Why the server does not accept it, in its own log and in the agent's.
	reason string
}

// refused starts a second agent with such a token. The server must refuse it, for this reason and no other: both logs have
// it, kube-apiserver says the same of the token, and the same agent is welcome as soon as its file has a good one.
func (r refusal) refused(ctx context.Context, c *cluster) (string, error) {
	file := filepath.Join(c.folder, "refused-token")
	if c.options.broken == breakTokens {
		r.account, r.audience, r.user = agentAccount, audience, "system:serviceaccount:"+systemNamespace+":"+agentAccount
	}
	if err := c.writeToken(ctx, file, r.account, r.audience); err != nil {
		return "", err
	}
	if user, err := c.review(ctx, file); err != nil || user != r.user {
		return "", fmt.Errorf("whose token it is: %w", errors.Join(err, want("the review", r.user, user)))
	}
	before, err := c.refusals(ctx, r.reason)
	if err != nil {
		return "", err
	}
	const name, port = "second-agent", agentHealthPort + 100
	log := filepath.Join(c.folder, name+".log")
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		return "", err
	}
	agent, err := c.startAgentAs(name, file, port)
	if err != nil {
		return "", err
	}
	defer agent.stop(syscall.SIGKILL)
	if err := until(ctx, c.limit(20*time.Second), "the reason in both logs", func(ctx context.Context) error {
		text, err := os.ReadFile(log)
		if err == nil && !strings.Contains(unquoted(text), r.reason) {
			err = fmt.Errorf("the agent's log does not say: %s", r.reason)
		}
		now, said := c.refusals(ctx, r.reason)
		if said == nil && (now.logged == before.logged || now.counted == before.counted && c.peer != reference) {
			said = fmt.Errorf("the server has not refused anybody because of: %s", r.reason)
		}
		return errors.Join(err, said)
	}, agent); err != nil {
		return "", err
	}
	site := c.options.inSite()
	if _, err := get(ctx, site, port, "/readyz"); err == nil {
		return "", errors.New("the agent is ready all the same")
	}
	if err := c.writeToken(ctx, file, agentAccount, audience); err != nil {
		return "", err
	}
	return "", until(ctx, c.limit(30*time.Second), "the same agent with a good token", func(ctx context.Context) error {
		_, err := get(ctx, site, port, "/readyz")
		return err
	}, agent)
}

// review asks kube-apiserver whose token is in a file, for the audience that the server asks for.
func (c *cluster) review(ctx context.Context, file string) (string, error) {
	token, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	review := &authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: string(token), Audiences: []string{audience}}}
	answer, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.User.Username, nil
}

// refusals are agents that the server did not accept: those that its log has for this reason, and what it has counted. The
// reference's counts none.
type refusals struct {
	logged  int
	counted float64
}

func (c *cluster) refusals(ctx context.Context, reason string) (refusals, error) {
	log, err := os.ReadFile(filepath.Join(c.folder, "proxy-server.log"))
	if err != nil {
		return refusals{}, err
	}
	r := refusals{logged: strings.Count(unquoted(log), reason)}
	if c.peer != reference {
		const name = "konnectivity_network_proxy_server_agent_authentications_total"
		r.counted, err = metric(ctx, http.DefaultClient, c.port(adminPort), name, `result="bad_token"`)
	}
	return r, err
}

// unquoted is a log without the backslashes before its quotes.
func unquoted(log []byte) string { return strings.ReplaceAll(string(log), `\`, "") }
