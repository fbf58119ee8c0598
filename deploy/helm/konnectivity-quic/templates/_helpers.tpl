{{- define "kq.labels" -}}
app.kubernetes.io/part-of: konnectivity-quic
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "kq.serverSelector" -}}
k8s-app: konnectivity-server
{{- end }}

{{- define "kq.agentSelector" -}}
k8s-app: konnectivity-agent
{{- end }}

{{- define "kq.image" -}}
{{ .root.Values.image.registry }}/{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "kq.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What no container of ours has: capabilities, a writable root, a way to more rights. */}}
{{- define "kq.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{- define "kq.podSecurity" -}}
runAsUser: {{ . }}
runAsGroup: {{ . }}
runAsNonRoot: {{ ne (int .) 0 }}
fsGroup: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Whether the servers ask the Kubernetes API for something. */}}
{{- define "kq.serverUsesApi" -}}
{{- if or .Values.authentication.tokens.enabled .Values.leases.enabled (eq .Values.authentication.identifierPolicy "own-node") }}true{{ end }}
{{- end }}

{{- define "kq.socket" -}}
{{ .Values.server.frontend.socketFolder }}/{{ .Values.server.frontend.socketName }}
{{- end }}

{{- define "kq.certificateFolder" -}}
{{ .Values.server.certificate.hostFolder | default "/etc/konnectivity-quic/cluster" }}
{{- end }}

{{/* What values.schema.json cannot say. */}}
{{- define "kq.check" -}}
{{- with .Values }}
{{- if not (or .authentication.tokens.enabled .authentication.certificates.enabled) }}
{{- fail "nothing says which agents may connect: set authentication.tokens.enabled or authentication.certificates.enabled" }}
{{- end }}
{{- if .authentication.certificates.enabled }}
{{- if and (ne .server.kind "None") (not .authentication.certificates.caSecret) }}{{ fail "set authentication.certificates.caSecret, the authorities of agents' certificates" }}{{ end }}
{{- if and (ne .agent.kind "None") (not .authentication.certificates.agentSecret) }}{{ fail "set authentication.certificates.agentSecret, the certificate of agents" }}{{ end }}
{{- end }}
{{- if and .server.frontend.tls.enabled (ne .server.frontend.protocol "HTTPConnect") }}
{{- fail "server.frontend.tls needs server.frontend.protocol=HTTPConnect: kube-apiserver speaks GRPC over a Unix socket only" }}
{{- end }}
{{- if and .server.frontend.tls.enabled (not .server.frontend.tls.secret) }}{{ fail "set server.frontend.tls.secret" }}{{ end }}
{{- if and (ne .server.kind "None") (not .server.certificate.hostFolder) (not .server.certificate.secret) }}
{{- fail "set server.certificate.secret or server.certificate.hostFolder, what agents see" }}
{{- end }}
{{- if and .server.staticPod.print (ne .server.kind "StaticPod") }}{{ fail "server.staticPod.print needs server.kind=StaticPod" }}{{ end }}
{{- if eq .server.kind "StaticPod" }}
{{- if not .server.certificate.hostFolder }}{{ fail "a static pod cannot read Secrets: set server.certificate.hostFolder" }}{{ end }}
{{- if .server.frontend.tls.enabled }}{{ fail "a static pod cannot read Secrets: leave server.frontend.tls.enabled out" }}{{ end }}
{{- if .authentication.certificates.enabled }}{{ fail "a static pod cannot read Secrets: for certificates of agents, set --cluster-ca-cert in server.extraArgs and authentication.certificates.caSecret in an installation of the agents alone" }}{{ end }}
{{- if and (include "kq.serverUsesApi" $) (not .server.kubeconfig) }}{{ fail "a static pod has no service account: set server.kubeconfig" }}{{ end }}
{{- end }}
{{- if and (eq .agent.kind "None") (eq .server.kind "None") }}{{ fail "neither servers nor agents are to be installed" }}{{ end }}
{{- if and (ne .agent.kind "None") (eq .server.kind "None") (not .agent.serverHost) }}{{ fail "set agent.serverHost: there is no Service of servers here" }}{{ end }}
{{- end }}
{{- end }}

{{/* The server's arguments, the same for a DaemonSet and a static pod. */}}
{{- define "kq.serverArgs" -}}
{{- $server := .Values.server }}
{{- $authentication := .Values.authentication }}
{{- if eq $server.frontend.protocol "HTTPConnect" }}
- --mode=http-connect
{{- else }}
- --mode=grpc
{{- end }}
{{- if $server.frontend.tls.enabled }}
- --server-port={{ $server.frontend.tls.port }}
- --server-bind-address={{ $server.frontend.tls.bindAddress }}
- --server-cert=/etc/konnectivity-quic/frontend/tls.crt
- --server-key=/etc/konnectivity-quic/frontend/tls.key
- --server-ca-cert=/etc/konnectivity-quic/frontend/ca.crt
{{- else }}
- --uds-name={{ include "kq.socket" . }}
- --server-port=0
{{- end }}
- --agent-port={{ $server.agentPort }}
- --cluster-cert={{ include "kq.certificateFolder" . }}/{{ $server.certificate.certFile }}
- --cluster-key={{ include "kq.certificateFolder" . }}/{{ $server.certificate.keyFile }}
{{- if $authentication.certificates.enabled }}
- --cluster-ca-cert=/etc/konnectivity-quic/agents-ca/{{ $authentication.certificates.caKey }}
{{- end }}
{{- if $authentication.tokens.enabled }}
- --agent-namespace={{ .Release.Namespace }}
- --agent-service-account=konnectivity-agent
- --authentication-audience={{ $authentication.tokens.audience }}
{{- end }}
{{- if eq $authentication.identifierPolicy "own-node" }}
- --agent-identifier-policy=own-node
{{- end }}
{{- if $server.kubeconfig }}
- --kubeconfig={{ $server.kubeconfig }}
{{- end }}
{{- if .Values.leases.enabled }}
- --enable-lease-controller
- --lease-namespace={{ .Values.leases.namespace }}
{{- else }}
- --server-count={{ $server.count }}
{{- end }}
{{- with $server.advertiseAddresses }}
- --advertise-agent-addresses={{ join "," . }}
{{- end }}
- --proxy-strategies={{ join "," $server.proxyStrategies }}
- --graceful-shutdown-timeout={{ $server.gracefulShutdownSeconds }}s
- --health-port={{ $server.healthPort }}
{{- if $server.healthBindAddress }}
- --health-bind-address={{ $server.healthBindAddress }}
{{- end }}
- --admin-port={{ $server.adminPort }}
- --log-level={{ $server.logLevel }}
{{- range $server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* The server's container. */}}
{{- define "kq.serverContainer" -}}
{{- $server := .Values.server }}
name: proxy-server
image: {{ include "kq.image" (dict "root" . "program" "proxy-server") }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
{{- include "kq.serverArgs" . | trim | nindent 2 }}
env:
  # A server that starts again is the same server.
  - name: PROXY_SERVER_ID
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  # For server.advertiseAddresses and server.extraArgs.
  - name: HOST_IP
    valueFrom: {fieldRef: {fieldPath: status.hostIP}}
ports:
  - {name: agents-quic, containerPort: {{ $server.agentPort }}, protocol: UDP}
  - {name: agents-grpc, containerPort: {{ $server.agentPort }}, protocol: TCP}
  - {name: health, containerPort: {{ $server.healthPort }}, protocol: TCP}
startupProbe:
  httpGet: {path: /healthz, port: health{{ with $server.healthBindAddress }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health{{ with $server.healthBindAddress }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 10
  timeoutSeconds: 15
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health{{ with $server.healthBindAddress }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 5
  timeoutSeconds: 15
resources:
{{- toYaml $server.resources | nindent 2 }}
securityContext:
{{- include "kq.containerSecurity" . | nindent 2 }}
volumeMounts:
{{- if $server.frontend.tls.enabled }}
  - {name: frontend, mountPath: /etc/konnectivity-quic/frontend, readOnly: true}
{{- else }}
  - {name: socket, mountPath: {{ $server.frontend.socketFolder }}}
{{- end }}
{{- if $server.certificate.hostFolder }}
  - {name: certificate, mountPath: {{ $server.certificate.hostFolder }}/{{ $server.certificate.certFile }}, readOnly: true}
  - {name: key, mountPath: {{ $server.certificate.hostFolder }}/{{ $server.certificate.keyFile }}, readOnly: true}
{{- else }}
  - {name: certificate, mountPath: {{ include "kq.certificateFolder" . }}, readOnly: true}
{{- end }}
{{- if .Values.authentication.certificates.enabled }}
  - {name: agents-ca, mountPath: /etc/konnectivity-quic/agents-ca, readOnly: true}
{{- end }}
{{- if $server.kubeconfig }}
  - {name: kubeconfig, mountPath: {{ $server.kubeconfig }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Its volumes. */}}
{{- define "kq.serverVolumes" -}}
{{- $server := .Values.server }}
{{- if $server.frontend.tls.enabled }}
- name: frontend
  secret: {secretName: {{ $server.frontend.tls.secret }}, defaultMode: 0440}
{{- else }}
# With another user than root the folder must be there, and be that user's.
- name: socket
  hostPath: {path: {{ $server.frontend.socketFolder }}, type: {{ ternary "DirectoryOrCreate" "Directory" (eq (int $server.runAsUser) 0) }}}
{{- end }}
{{- if $server.certificate.hostFolder }}
# Two files and not their folder, which may hold the keys of authorities.
- name: certificate
  hostPath: {path: {{ $server.certificate.hostFolder }}/{{ $server.certificate.certFile }}, type: File}
- name: key
  hostPath: {path: {{ $server.certificate.hostFolder }}/{{ $server.certificate.keyFile }}, type: File}
{{- else }}
- name: certificate
  secret: {secretName: {{ $server.certificate.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.authentication.certificates.enabled }}
- name: agents-ca
  secret:
    secretName: {{ .Values.authentication.certificates.caSecret }}
    defaultMode: 0440
    # Not the key of the authority, should it be there.
    items: [{key: {{ .Values.authentication.certificates.caKey }}, path: {{ .Values.authentication.certificates.caKey }}}]
{{- end }}
{{- if $server.kubeconfig }}
- name: kubeconfig
  hostPath: {path: {{ $server.kubeconfig }}, type: File}
{{- end }}
{{- end }}
