{{- define "webhook.name" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) }}
{{- fail "the name of the release: letters, digits and -, a letter first, for a Service is named after it" }}
{{- end }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "webhook.selector" -}}
app.kubernetes.io/name: responder-webhook
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "webhook.labels" -}}
{{ include "webhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: responder
{{- end }}

{{- define "webhook.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "webhook.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" }}
{{- required "tls.secretName: name the Secret that has tls.crt and tls.key" .Values.tls.secretName }}
{{- else }}
{{- if or .Values.tls.secretName .Values.tls.caBundle }}
{{- fail "tls.mode: set it to secret, or leave out tls.secretName and tls.caBundle, which are for that" }}
{{- end }}
{{- include "webhook.name" . }}-tls
{{- end }}
{{- end }}

{{- define "webhook.secretRules" -}}
{{- /* .names: the Secrets; .challenges: whether Challenges may be listed */ -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson .names }}
  verbs: [get]
{{- if .challenges }}
- apiGroups: [acme.cert-manager.io]
  resources: [challenges]
  verbs: [list]
{{- end }}
{{- end }}

{{- define "webhook.subject" -}}
- kind: ServiceAccount
  namespace: {{ .Release.Namespace | quote }}
  name: {{ include "webhook.name" . | quote }}
{{- end }}
