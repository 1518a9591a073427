{{/* Names, labels, and what several pods have in common. */}}

{{- define "rusd.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "rusd.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "rusd.labels" -}}
{{ include "rusd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: (dict "root" $ "suffix" "-x" "component" "x" "annotations" (dict …)); "name" in place of the suffix */}}
{{- define "rusd.metadata" -}}
name: {{ default (printf "%s%s" (include "rusd.fullname" .root) (default "" .suffix)) .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "rusd.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "rusd.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "rusd.scheme" -}}{{ ternary "https" "http" .Values.tls.enabled }}{{- end -}}

{{/* The domain of the pods' own names. */}}
{{- define "rusd.domain" -}}
{{ include "rusd.fullname" . }}-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{- define "rusd.serviceUrl" -}}
{{ include "rusd.scheme" . }}://{{ include "rusd.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:2379
{{- end -}}

{{/* Whom the chart's own pods ask: whoever is ready, then each member by its name. */}}
{{- define "rusd.endpoints" -}}
{{- $urls := list (include "rusd.serviceUrl" .) -}}
{{- range $at := until (int .Values.replicas) -}}
{{- $urls = append $urls (printf "%s://%s-%d.%s:2379" (include "rusd.scheme" $) (include "rusd.fullname" $) $at (include "rusd.domain" $)) -}}
{{- end -}}
{{ join "," $urls }}
{{- end -}}

{{- define "rusd.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "rusd.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "rusd.tlsSecret" -}}
{{- default (printf "%s-tls" (include "rusd.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* How members are reached as a client, by etcdctl's variables. */}}
{{- define "rusd.clientEnv" -}}
{{- if .Values.auth.enabled }}
- name: ETCDCTL_USER
  value: root
- name: ETCDCTL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.auth.existingSecret }}, key: {{ .Values.auth.secretKey }}}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: ETCDCTL_CACERT, value: /etc/rusd/tls/ca.crt}
- {name: ETCDCTL_CERT, value: /etc/rusd/tls/tls.crt}
- {name: ETCDCTL_KEY, value: /etc/rusd/tls/tls.key}
{{- end }}
{{- end -}}

{{/* Of every pod: no root, no token, nothing that it doesn't need. */}}
{{- define "rusd.podCommon" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "rusd.containerCommon" -}}
image: {{ include "rusd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* A short job of the chart's own: (dict "root" $ "component" "x" "args" (list …)). It runs as the namespace's default
   account, without a token: a hook comes before the release's own account is there, or a new one of another name. */}}
{{- define "rusd.jobSpec" -}}
backoffLimit: {{ .retries }}
{{- with .deadline }}
activeDeadlineSeconds: {{ . }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "rusd.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
      {{- with .root.Values.commonLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- /* Not podAnnotations: a sidecar that members are given never ends, and nor would the job. */}}
    {{- with (.root.Values.jobs).podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    {{- include "rusd.podCommon" .root | nindent 4 }}
    containers:
      - name: rusd
        {{- include "rusd.containerCommon" .root | nindent 8 }}
        args:
          {{- toYaml .args | nindent 10 }}
        {{- with concat (include "rusd.clientEnv" .root | fromYamlArray) (default (list) .env) }}
        env:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        resources:
          {{- toYaml (default (dict "requests" (dict "cpu" "10m" "memory" "32Mi") "limits" (dict "memory" "128Mi")) .resources) | nindent 10 }}
        {{- with concat (include "rusd.tlsMounts" .root | fromYamlArray) (default (list) .mounts) }}
        volumeMounts:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- with concat (include "rusd.tlsVolumes" (dict "root" .root "optional" .tlsOptional) | fromYamlArray) (default (list) .volumes) }}
    volumes:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}

{{- define "rusd.tlsMounts" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/rusd/tls, readOnly: true}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "optional" true): a pod that starts all the same if the secret isn't there. */}}
{{- define "rusd.tlsVolumes" -}}
{{- if .root.Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "rusd.tlsSecret" .root }}, defaultMode: 288{{ if .optional }}, optional: true{{ end }}}
{{- end }}
{{- end -}}

{{/* Requests and limits that follow from the flags. */}}
{{- define "rusd.resources" -}}
{{- if .Values.resources -}}
{{ toYaml .Values.resources }}
{{- else -}}
{{- $server := .Values.server -}}
{{- $least := add 256 $server.cacheMiB -}}
requests:
  cpu: 250m
  memory: {{ $least }}Mi
limits:
  memory: {{ add $least $server.pendingRequestsMiB $server.pendingAnswersMiB (div $server.quotaMiB 2) }}Mi
{{- end -}}
{{- end -}}

{{/* Seconds of a duration like 1h30m; parts below a second don't count. */}}
{{- define "rusd.seconds" -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 "ms" 0 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $sum = add $sum (mul (regexReplaceAll "^0+([0-9])" $number "${1}" | int64) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{ $sum }}
{{- end -}}

{{- define "rusd.volumeSize" -}}
{{- default (printf "%dMi" (add 1024 (mul 4 .Values.server.quotaMiB))) .Values.persistence.size -}}
{{- end -}}
