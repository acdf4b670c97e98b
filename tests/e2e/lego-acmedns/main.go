// Obtains one certificate with lego's own library and its acme-dns provider, which Debian's lego lacks.
//
// usage: lego-acmedns DIRECTORY-URL RESOLVER OUT.pem NAME...
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log"
	"os"

	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/providers/dns/acmedns"
	"github.com/go-acme/lego/v4/registration"
)

type account struct {
	key          crypto.PrivateKey
	registration *registration.Resource
}

func (a *account) GetEmail() string                        { return "" }
func (a *account) GetRegistration() *registration.Resource { return a.registration }
func (a *account) GetPrivateKey() crypto.PrivateKey        { return a.key }

func main() {
	log.SetFlags(0)
	directory, resolver, out, names := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	user := &account{key: key}
	config := lego.NewConfig(user)
	config.CADirURL = directory
	client, err := lego.NewClient(config)
	check(err)
	provider, err := acmedns.NewDNSProvider()
	check(err)
	check(client.Challenge.SetDNS01Provider(provider,
		dns01.AddRecursiveNameservers([]string{resolver}),
		dns01.DisableAuthoritativeNssPropagationRequirement(),
	))
	user.registration, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true})
	check(err)
	certificates, err := client.Certificate.Obtain(certificate.ObtainRequest{Domains: names, Bundle: true})
	check(err)
	check(os.WriteFile(out, certificates.Certificate, 0o600))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
