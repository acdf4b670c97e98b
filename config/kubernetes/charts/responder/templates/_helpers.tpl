{{- define "responder.name" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) }}
{{- fail "the name of the release: letters, digits and -, a letter first, for a Service is named after it" }}
{{- end }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "responder.selector" -}}
app.kubernetes.io/name: responder
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "responder.labels" -}}
{{ include "responder.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: responder
{{- end }}

{{- define "responder.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "responder.tls" -}}
{{- $tls := dig "api" "tls" "off" .Values.config }}
{{- kindIs "bool" $tls | ternary "off" $tls }}
{{- end }}

{{- /* The list of listenAddresses with the port .port, as the settings have it. */ -}}
{{- define "responder.listen" -}}
{{- $endpoints := list }}
{{- range .addresses }}
{{- $endpoints = append $endpoints (printf "%s:%d" (contains ":" . | ternary (printf "[%s]" .) .) $.port) }}
{{- end }}
{{- toJson $endpoints }}
{{- end }}

{{- /* YAML's numbers arrive as floating point, but every number in the settings is a whole one. Changes the map. */ -}}
{{- define "responder.wholeNumbers" -}}
{{- range $key, $value := . }}
{{- if kindIs "float64" $value }}{{ $_ := set $ $key (int64 $value) }}
{{- else if kindIs "map" $value }}{{ include "responder.wholeNumbers" $value }}
{{- else if kindIs "slice" $value }}
{{- range $value }}{{ if kindIs "map" . }}{{ include "responder.wholeNumbers" . }}{{ end }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The word off, which YAML takes for the Boolean false where it is not in quotes. Changes the map. */ -}}
{{- define "responder.quoteOff" -}}
{{- range $section, $key := dict "api" "tls" "database" "listen_url" }}
{{- if kindIs "bool" (dig $section $key "" $) }}{{ $_ := set (index $ $section) $key "off" }}{{ end }}
{{- end }}
{{- end }}

{{- /* responder.toml: the settings from config, and those that the chart decides. */ -}}
{{- define "responder.toml" -}}
{{- $config := deepCopy .Values.config }}
{{- range $section, $port := dict "dns" 5353 "api" 8443 "admin" 8054 }}
{{- $listen := include "responder.listen" (dict "addresses" $.Values.listenAddresses "port" $port) | fromJsonArray }}
{{- $_ := set $config $section (merge (dict "listen" $listen) (index $config $section | default dict)) }}
{{- end }}
{{- include "responder.wholeNumbers" $config }}
{{- include "responder.quoteOff" $config }}
{{- toToml $config }}
{{- end }}

{{- define "responder.check" -}}
{{- if not .Values.config.zones }}
{{- fail "config.zones: add at least one zone; values.yaml has an example" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.postgresql.secretName) }}
{{- fail "replicas: more than one needs PostgreSQL: name the Secret with its URL in postgresql.secretName" }}
{{- end }}
{{- end }}
