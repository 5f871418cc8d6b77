{{- /* Labels of every object. Call with (dict "root" $ "name" "sluice-operator"). */ -}}
{{- define "sluice.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- /* An image reference. Call with (dict "root" $ "image" .Values.operator.image). */ -}}
{{- define "sluice.image" -}}
{{- $tag := .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}{{ .image.repository }}:{{ $tag }}
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
