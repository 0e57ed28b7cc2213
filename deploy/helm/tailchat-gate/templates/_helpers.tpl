{{- define "gate.name" -}}
{{- if contains "tailchat-gate" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-tailchat-gate" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- define "gate.selector" -}}
app.kubernetes.io/name: tailchat-gate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gate.labels" -}}
{{ include "gate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "gate.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "gate.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end -}}

{{- define "gate.claim" -}}
{{ .Values.persistence.existingClaim | default (include "gate.name" .) }}
{{- end -}}

{{- /* What is not certainly one address counts as a range, as does any text of config.toml. */}}
{{- define "gate.trustsRange" -}}
{{- range .Values.trustedProxies }}{{ if not (regexMatch `^([0-9.]+(/32)?|[0-9A-Fa-f]*:[0-9A-Fa-f:]*(/128)?)$` .) }}true{{ end }}{{ end -}}
{{- if and (not .Values.trustedProxies) (regexMatch "(?m)^[^#\n]*trusted_proxies" .Values.config) }}true{{ end -}}
{{- end -}}

{{- define "gate.refuse" -}}
{{- if not .Values.config }}{{ fail "config: the text of config.toml is missing" }}{{ end -}}
{{- if not .Values.secret.name }}{{ fail "secret.name: the name of a Secret is missing" }}{{ end -}}
{{- if and .Values.tls.secretName (or .Values.ingress.enabled .Values.gateway.enabled .Values.forwardAuth.kind) }}{{ fail "tls.secretName: ingress, gateway and forwardAuth lead to the plain port, which then only redirects; leave it empty" }}{{ end -}}
{{- if and (include "gate.trustsRange" .) (not (and .Values.networkPolicy.enabled .Values.networkPolicy.from)) }}{{ fail "networkPolicy.from: a trusted range covers pods that are no proxy; name those that may connect, such as the namespace of the ingress controller" }}{{ end -}}
{{- if include "gate.several" . -}}
{{- if not .Values.sharedState }}{{ fail "sharedState: more than one pod needs state that they share" }}{{ end -}}
{{- if .Values.persistence.enabled }}{{ fail "persistence.enabled: one volume is for one pod; set it to false" }}{{ end -}}
{{- end -}}
{{- end -}}
