// kube-apiserver, and etcd for it in the same program: what of a Kubernetes control plane a webhook can be tried with.
//
//	kube-apiserver etcd --data-dir ...    etcd, with its own flags
//	kube-apiserver --etcd-servers ...     kube-apiserver, with its own flags
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "etcd" {
		etcdmain.Main(os.Args[1:])
		return
	}
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
