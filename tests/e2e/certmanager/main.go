// Runs cert-manager's own code for one challenge, as its controller does, without a cluster: chooses the solver of an
// Issuer for a name, follows CNAMEs, finds the zone, and asks the built-in acme-dns or rfc2136 client to present or
// clean up, or checks what the DNS shows. A request comes in as JSON on stdin; what went wrong goes out on stderr.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/controller/acmeorders/selectors"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/acmedns"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/rfc2136"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
)

type request struct {
	Action      string            `json:"action"` // present, cleanup or check
	Issuer      cmapi.Issuer      `json:"issuer"`
	Secret      map[string]string `json:"secret"`
	DNSName     string            `json:"dnsName"`
	Wildcard    bool              `json:"wildcard"`
	Key         string            `json:"key"`
	Nameservers []string          `json:"nameservers"`
}

func main() {
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	var asked request
	err := decoder.Decode(&asked)
	if err == nil {
		err = run(context.Background(), asked)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, asked request) error {
	solver, err := choose(asked)
	if err != nil {
		return err
	}
	if asked.Action == "check" {
		// The check always begins at the name that the CA asks for, and follows CNAMEs by itself.
		return check(ctx, asked)
	}
	follow := solver.CNAMEStrategy == cmacme.FollowStrategy
	fqdn, err := util.DNS01LookupFQDN(ctx, asked.DNSName, follow, asked.Nameservers...)
	if err != nil {
		return err
	}
	switch {
	case solver.AcmeDNS != nil:
		accounts := asked.Secret[solver.AcmeDNS.AccountSecret.Key]
		client, err := acmedns.NewDNSProviderHostBytes(solver.AcmeDNS.Host, []byte(accounts), asked.Nameservers)
		if err != nil {
			return err
		}
		if asked.Action == "present" {
			return client.Present(ctx, asked.DNSName, fqdn, asked.Key)
		}
		return client.CleanUp(ctx, asked.DNSName, fqdn, asked.Key)
	case solver.RFC2136 != nil:
		zone, err := util.FindZoneByFqdn(ctx, fqdn, asked.Nameservers)
		if err != nil {
			return err
		}
		config := solver.RFC2136
		secret := asked.Secret[config.TSIGSecret.Key]
		client, err := rfc2136.NewDNSProviderCredentials(config.Nameserver, config.TSIGAlgorithm, config.TSIGKeyName,
			secret, rfc2136.WithNetwork(string(config.Protocol)))
		if err != nil {
			return err
		}
		if asked.Action == "present" {
			return client.Present("", fqdn, zone, asked.Key)
		}
		return client.CleanUp("", fqdn, zone, asked.Key)
	}
	return errors.New("the solver is neither acmeDNS nor rfc2136")
}

func choose(asked request) (*cmacme.ACMEChallengeSolverDNS01, error) {
	name := asked.DNSName
	if asked.Wildcard {
		name = "*." + name
	}
	for _, solver := range asked.Issuer.Spec.ACME.Solvers {
		names, _ := selectors.DNSNames(*solver.Selector).Matches(asked.Issuer.ObjectMeta, name)
		zones, _ := selectors.DNSZones(*solver.Selector).Matches(asked.Issuer.ObjectMeta, name)
		if names && zones && solver.DNS01 != nil {
			return solver.DNS01, nil
		}
	}
	return nil, fmt.Errorf("no solver of the issuer is for %s", name)
}

func check(ctx context.Context, asked request) error {
	fqdn, err := util.DNS01LookupFQDN(ctx, asked.DNSName, false, asked.Nameservers...)
	if err != nil {
		return err
	}
	seen, err := util.PreCheckDNS(ctx, fqdn, asked.Key, asked.Nameservers, false)
	if err == nil && !seen {
		err = fmt.Errorf("%s does not show the key yet", fqdn)
	}
	return err
}
