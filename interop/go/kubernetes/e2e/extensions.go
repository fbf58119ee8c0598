package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// askWebhook makes objects that the webhook allows, and one that it refuses.
func askWebhook(ctx context.Context, c *cluster) (string, error) {
	refused := func(ctx context.Context) error {
		err := c.createConfigMap(ctx, "refused", map[string]string{"refuse": "by-name"})
		if err == nil {
			err = c.client.CoreV1().ConfigMaps(namespace).Delete(ctx, "refused", metav1.DeleteOptions{})
			return errors.Join(errors.New("nobody refused it"), err)
		}
		if !strings.Contains(err.Error(), "refused by the webhook: by-name") {
			return err
		}
		return nil
	}
	// kube-apiserver needs a moment to see a new webhook.
	if err := until(ctx, c.limit(20*time.Second), "the webhook's refusal", refused); err != nil {
		return "", err
	}
	start := time.Now()
	count := c.size(50, 10)
	for number := range count {
		if err := c.createConfigMap(ctx, fmt.Sprintf("allowed-%d", number), nil); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%.0f ms an object", float64(time.Since(start).Milliseconds())/float64(count)), nil
}

func (c *cluster) createConfigMap(ctx context.Context, name string, labels map[string]string) error {
	object := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := c.client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{})
	return err
}

// askAggregated waits until kube-apiserver calls the API available, and reads it.
func askAggregated(ctx context.Context, c *cluster) (string, error) {
	if err := until(ctx, c.limit(40*time.Second), "the APIService", func(ctx context.Context) error {
		service, err := c.aggregator.ApiregistrationV1().APIServices().Get(ctx, "v1."+aggregatedGroup, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range service.Status.Conditions {
			if condition.Type == registration.Available && condition.Status == registration.ConditionTrue {
				return nil
			}
			err = fmt.Errorf("%s is %s: %s", condition.Type, condition.Status, condition.Message)
		}
		return errors.Join(errors.New("not available"), err)
	}); err != nil {
		return "", err
	}
	got, err := c.succeed(ctx, webSocket, nil, "get", "notes."+aggregatedGroup, "-o", "jsonpath={.items[*].metadata.annotations.asked-by}")
	if err != nil {
		return "", err
	}
	return "", want("the user that it was asked for", adminUser, got)
}
