{{/* What the schema can't say: values that don't go together. */}}
{{- define "rusd.check" -}}
{{- $tls := .Values.tls -}}
{{- if $tls.enabled -}}
{{- if and $tls.existingSecret $tls.certManager.enabled }}{{ fail "tls: existingSecret and certManager.enabled are two sources of one certificate: leave one out" }}{{ end -}}
{{- if not (or $tls.existingSecret $tls.certManager.enabled) }}{{ fail "tls.enabled: name a secret by tls.existingSecret, or set tls.certManager.enabled" }}{{ end -}}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) }}{{ fail "tls.certManager.issuerRef.name: name the issuer" }}{{ end -}}
{{- else if or $tls.existingSecret $tls.certManager.enabled }}{{ fail "tls.enabled is false, and a certificate is named: set tls.enabled=true" }}
{{- end -}}
{{- if and .Values.auth.enabled (not .Values.auth.existingSecret) }}{{ fail "auth.enabled: name the secret with root's password by auth.existingSecret" }}{{ end -}}
{{- if .Values.restore.enabled -}}
{{- if not (and .Values.restore.existingClaim .Values.restore.file) }}{{ fail "restore.enabled: name the claim and the file in it by restore.existingClaim and restore.file" }}{{ end -}}
{{- if not .Values.persistence.enabled }}{{ fail "restore.enabled without persistence.enabled: it would be restored at every restart of all pods" }}{{ end -}}
{{- end -}}
{{- $server := .Values.server -}}
{{- if lt (int $server.electionTimeoutMs) (mul 5 $server.heartbeatIntervalMs | int) }}{{ fail "server.electionTimeoutMs: it must be at least 5 times server.heartbeatIntervalMs" }}{{ end -}}
{{- $own := list "name" "data-dir" "wal-dir" "listen-client-urls" "advertise-client-urls" "listen-peer-urls" "initial-advertise-peer-urls" "listen-metrics-urls" "initial-cluster" "initial-cluster-state" "initial-cluster-token" "auto-promote-learners" "import-from" "replicas" "rejoin-after" "force-new-cluster" "config-file" "discovery" "discovery-endpoints" "discovery-token" -}}
{{- range $side := list "" "peer-" -}}
{{- range $flag := list "cert-file" "key-file" "trusted-ca-file" "client-cert-auth" "auto-tls" }}{{ $own = append $own (print $side $flag) }}{{ end -}}
{{- end -}}
{{- range $server.extraArgs -}}
{{- $flag := . | trimPrefix "--" | splitList "=" | first -}}
{{- if has $flag $own }}{{ fail (printf "server.extraArgs: --%s is the chart's own business" $flag) }}{{ end -}}
{{- end -}}
{{- $sized := dict "quota-backend-bytes" "quotaMiB" "backend-cache-mb" "cacheMiB" "pending-requests-mb" "pendingRequestsMiB" "pending-answers-mb" "pendingAnswersMiB" "backend" "backend" "heartbeat-interval" "heartbeatIntervalMs" "election-timeout" "electionTimeoutMs" "auto-compaction-mode" "autoCompaction.mode" "auto-compaction-retention" "autoCompaction.retention" "log-level" "logLevel" -}}
{{- range $server.extraArgs -}}
{{- $flag := . | trimPrefix "--" | splitList "=" | first -}}
{{- with get $sized $flag }}{{ fail (printf "server.extraArgs: --%s is set by server.%s" $flag .) }}{{ end -}}
{{- end -}}
{{- range $label, $value := .Values.commonLabels -}}
{{- if regexMatch "^(app[.]kubernetes[.]io/(name|instance|component|version|managed-by)|helm[.]sh/chart)$" $label }}{{ fail (printf "commonLabels: %s is the chart's own" $label) }}{{ end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" (include "rusd.fullname" .)) }}{{ fail (printf "%s: a Service's name begins with a letter, and has no dot: set fullnameOverride" (include "rusd.fullname" .)) }}{{ end -}}
{{- /* Empty where no cluster is asked, as by helm template. */ -}}
{{- $size := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-size" (include "rusd.fullname" .)) -}}
{{- $was := dig "data" (dict) (default (dict) $size) -}}
{{- $scheme := include "rusd.scheme" . -}}
{{- if ne (dig "scheme" $scheme $was) $scheme }}{{ fail (printf "tls.enabled: this release's members are known by %s URLs, and would be looked for where they aren't" $was.scheme) }}{{ end -}}
{{- if ne (dig "domain" .Values.clusterDomain $was) .Values.clusterDomain }}{{ fail (printf "clusterDomain: this release's members are known by names below %s, and would be looked for where they aren't" $was.domain) }}{{ end -}}
{{- $down := .Values.scaleDown -}}
{{- if and $down.enabled (lt (include "rusd.seconds" $down.rejoinAfter | int) (include "rusd.seconds" $down.timeout | int)) }}{{ fail "scaleDown.rejoinAfter: it must not be less than scaleDown.timeout, or removed members join again meanwhile" }}{{ end -}}
{{- if not $down.enabled -}}
{{- $now := dig "replicas" "0" $was | int -}}
{{- if lt (int .Values.replicas) $now }}{{ fail (printf "replicas: from %d to %d with scaleDown.enabled=false the members stay and their pods go, which may cost the majority" $now (int .Values.replicas)) }}{{ end -}}
{{- end -}}
{{- $rule := .Values.metrics.prometheusRule -}}
{{- if and $rule.enabled (not $rule.selector) (not .Values.metrics.serviceMonitor.enabled) }}{{ fail "metrics.prometheusRule.enabled: its alerts look at what metrics.serviceMonitor scrapes: enable that, or name the members' series by metrics.prometheusRule.selector" }}{{ end -}}
{{- end -}}
