// cert-manager's conformance suite for DNS01 webhooks, by way of cert-manager's own client for them: it asks the
// kube-apiserver of a cluster, which asks the webhook.
package main

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	client "github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/webhook"
	suite "github.com/cert-manager/cert-manager/test/acme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type settings struct {
	Kubeconfig string          `json:"kubeconfig"` // of cert-manager's service account
	Webhook    json.RawMessage `json:"webhook"`    // as an Issuer has it: groupName, solverName, config
	DNSName    string          `json:"dnsName"`
	FQDN       string          `json:"fqdn"`
	Zone       string          `json:"zone"`
	Nameserver string          `json:"nameserver"`
}

type solver struct {
	client.Webhook
	kubeconfig string
}

// Initialize gets the configuration of the suite's own control plane, which has no webhook.
func (s *solver) Initialize(_ *rest.Config, stop <-chan struct{}) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return err
	}
	return s.Webhook.Initialize(config, stop)
}

func TestConformance(t *testing.T) {
	var given settings
	if err := json.Unmarshal([]byte(os.Getenv("CONFORMANCE")), &given); err != nil {
		t.Fatal(err)
	}
	suite.NewFixture(
		&solver{kubeconfig: given.Kubeconfig},
		suite.SetConfig(given.Webhook),
		suite.SetDNSName(given.DNSName),
		suite.SetResolvedFQDN(given.FQDN),
		suite.SetResolvedZone(given.Zone),
		suite.SetDNSServer(given.Nameserver),
		suite.SetUseAuthoritative(false), // that asks at port 53
		suite.SetPollInterval(100*time.Millisecond),
		suite.SetStrict(true),
	).RunConformance(t)
}
