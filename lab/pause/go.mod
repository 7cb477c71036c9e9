// The sandbox container of each pod: it holds the pod's namespaces and waits to be told to end.
module canaryrelease.dev/lab/pause

go 1.26.0
