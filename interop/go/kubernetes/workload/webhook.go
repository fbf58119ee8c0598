package main

import (
	"encoding/json"
	"net/http"

	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// webhook refuses objects with the label "refuse", and says why.
func webhook(address, cert, key string) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admission.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
			return
		}
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(review.Request.Object.Raw, &object); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if reason, refuse := object.Labels["refuse"]; refuse {
			answer.Allowed = false
			answer.Result = &metav1.Status{Message: "refused by the webhook: " + reason}
		}
		review.Request, review.Response = nil, answer
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(review)
	})
	return http.ListenAndServeTLS(address, cert, key, handler)
}
