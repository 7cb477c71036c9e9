// A container registry in memory, for the tests of evidence.
module canaryrelease.dev/lab/registry

go 1.26.0

require github.com/google/go-containerregistry v0.22.1
