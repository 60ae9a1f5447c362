// Package browser has the test of the gateway with a real browser: gRPC-Web and
// Connect clients from npm, in Chromium, on a page of another origin. It needs
// the build tag "browser" and what run.sh installs; make test-browser does both.
package browser
