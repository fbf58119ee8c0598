package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
)

const (
	group   = "e2e.konnectivity-quic.invalid"
	version = group + "/v1"
)

// api is an aggregated API with one resource, notes. Only kube-apiserver's front proxy may ask it; the one note says for
// which user.
func api(address, certFile, keyFile, clientCA string) error {
	clients, err := cert.NewPool(clientCA)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis", answer(func(*http.Request) any {
		known := metav1.GroupVersionForDiscovery{GroupVersion: version, Version: "v1"}
		return metav1.APIGroupList{
			TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
			Groups:   []metav1.APIGroup{{Name: group, Versions: []metav1.GroupVersionForDiscovery{known}, PreferredVersion: known}},
		}
	}))
	mux.HandleFunc("GET /apis/"+version, answer(func(*http.Request) any {
		return metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: version,
			APIResources: []metav1.APIResource{{Name: "notes", SingularName: "note", Kind: "Note", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}}},
		}
	}))
	mux.HandleFunc("GET /apis/"+version+"/namespaces/{namespace}/notes", answer(func(r *http.Request) any {
		return metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{Kind: "NoteList", APIVersion: version},
			Items: []metav1.PartialObjectMetadata{{
				TypeMeta: metav1.TypeMeta{Kind: "Note", APIVersion: version},
				ObjectMeta: metav1.ObjectMeta{
					Name: "first", Namespace: r.PathValue("namespace"),
					Annotations: map[string]string{"asked-by": r.Header.Get("X-Remote-User")},
				},
			}},
		}
	}))
	server := &http.Server{Addr: address, Handler: mux, TLSConfig: &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	}}
	return server.ListenAndServeTLS(certFile, keyFile)
}

func answer(content func(*http.Request) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(content(r)); err != nil {
			fmt.Println("api:", err)
		}
	}
}
