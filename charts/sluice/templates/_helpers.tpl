{{- /* Labels of every object. Call with (dict "root" $ "name" "sluice-operator"); "extra" adds a pod's own. */ -}}
{{- define "sluice.labels" -}}
{{- $ours := dict
  "app.kubernetes.io/name" .name
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "sluice"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version)
-}}
{{- /* The first of the merged wins: no label of a user replaces one that selectors need. */ -}}
{{- toYaml (merge $ours (.extra | default dict) .root.Values.commonLabels) }}
{{- end }}

{{- /* An image reference. Call with (dict "root" $ "image" .Values.operator.image). */ -}}
{{- define "sluice.image" -}}
{{- $missing := "image.registry is not set. Images of Sluice are not published: build them (make images), push them to a registry of yours, and name it: --set image.registry=registry.example/team" -}}
{{- $tag := .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- if and .image.digest (contains "@" $tag) }}
{{- fail (printf "the tag %s of %s has a digest already: set either image.tag with a digest or the image's digest" $tag .image.repository) }}
{{- end }}
{{- required $missing .root.Values.image.registry }}/{{ .image.repository }}:{{ $tag }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* Pull secrets of a pod. Call with the root. */ -}}
{{- define "sluice.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Name of a program's ServiceAccount. Call with (dict "root" $ "program" "operator"). */ -}}
{{- define "sluice.account" -}}
{{- (index .root.Values .program).serviceAccount.name | default (printf "sluice-%s" .program) }}
{{- end }}

{{- /* A program's ServiceAccount, if the chart is to make it. Called like "sluice.account". */ -}}
{{- define "sluice.serviceAccount" -}}
{{- $account := (index .root.Values .program).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "sluice.account" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sluice.labels" (dict "root" .root "name" (printf "sluice-%s" .program)) | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* What the operator gives to the pods of gateways, as `sluice-operator run --gateway-settings` reads it. */ -}}
{{- define "sluice.gatewaySettings" -}}
{{- $labels := merge (dict) .Values.gateway.podLabels .Values.commonLabels -}}
{{- dict
  "pullPolicy" .Values.image.pullPolicy
  "pullSecrets" .Values.image.pullSecrets
  "serviceAccount" (include "sluice.account" (dict "root" . "program" "gateway"))
  "priorityClassName" .Values.gateway.priorityClassName
  "logFormat" .Values.logFormat
  "labels" $labels
  "annotations" .Values.gateway.podAnnotations
  "args" .Values.gateway.extraArgs
  "env" .Values.gateway.extraEnv
  | toJson }}
{{- end }}

{{- /* A container that needs no privilege at all: the operator, the uninstall Job, the test. */ -}}
{{- define "sluice.unprivileged" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 6127
runAsGroup: 6127
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}
