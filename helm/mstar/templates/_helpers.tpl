{{/* First part of every name. */}}
{{- define "mstar.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of every object of the chart. */}}
{{- define "mstar.labels" -}}
app.kubernetes.io/name: mstar
app.kubernetes.io/part-of: mstar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name and namespace, then the labels: the head of an object. Arguments: the root, and what follows the first part. */}}
{{- define "mstar.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "mstar.name" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "mstar.labels" $root | nindent 2 }}
{{- end }}

{{- define "mstar.account.controller" -}}
{{- .Values.serviceAccounts.controller.name | default (printf "%s-controller" (include "mstar.name" .)) }}
{{- end }}

{{- define "mstar.account.stage" -}}
{{- .Values.serviceAccounts.stage.name | default (printf "%s-stage" (include "mstar.name" .)) }}
{{- end }}

{{/* An image of the project. Arguments: the root, and which. */}}
{{- define "mstar.image" -}}
{{- $root := index . 0 -}}
{{- printf "%s/mstar-%s:%s" $root.Values.images.registry (index . 1) ($root.Values.images.tag | default $root.Chart.AppVersion) }}
{{- end }}

{{/* Whether the trial server is the store: it is there, and nothing else is named. */}}
{{- define "mstar.onTrialS3" -}}
{{- if and .Values.trialS3.enabled (not .Values.s3.endpoint) }}yes{{ end }}
{{- end }}

{{- define "mstar.endpoint" -}}
{{- if include "mstar.onTrialS3" . }}http://{{ include "mstar.name" . }}-s3:7070{{ else }}{{ .Values.s3.endpoint }}{{ end }}
{{- end }}

{{/* A store for the notes and the test; empty when none is known. */}}
{{- define "mstar.store" -}}
{{- if .Values.s3.store }}{{ trimSuffix "/" .Values.s3.store }}{{ else if include "mstar.onTrialS3" . }}s3://{{ .Values.trialS3.bucket }}/runs{{ end }}
{{- end }}

{{/* Defaults of a run's cluster block: what is not set here is left to mstarctl. */}}
{{- define "mstar.cluster" -}}
{{- $images := dict "registry" .Values.images.registry "tag" (.Values.images.tag | default .Chart.AppVersion) "pull_policy" .Values.images.pullPolicy "pull_secrets" .Values.images.pullSecrets -}}
{{- $block := dict "images" $images -}}
{{- $_ := set $block "service_account" (include "mstar.account.stage" .) -}}
{{- $_ := set $block "controller_service_account" (include "mstar.account.controller" .) -}}
{{- $_ := set $block "secret" (.Values.s3.secret | default nil) -}}
{{- $_ := set $block "env_config" (printf "%s-env" (include "mstar.name" .)) -}}
{{- range $key, $value := .Values.defaults }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "") (and (kindIs "map" $value) (empty $value))) }}
{{- $_ := set $block $key $value -}}
{{- end }}
{{- end }}
{{- toYaml $block }}
{{- end }}

{{/* What Pod Security "restricted" asks of a container. */}}
{{- define "mstar.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}
