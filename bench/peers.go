//go:build linux

package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// settings is what a configuration is made of.
type settings struct {
	Dir      string
	Workers  int
	Root     bool
	Upstream int // ports
	GRPC     int
	REST     int
	TLS      bool
	Cert     certificate
	Lua      string // path of the module; empty without a call-out
	Callout  string // path at the target
	Body     string // what the call-out sends
	Token    string
	Engine   string
	Set      string // descriptor set
}

func (b *bench) settings(name string, s *scenario) (settings, error) {
	v := settings{Workers: b.workers, Root: os.Getuid() == 0, Upstream: b.port, TLS: s.tls, Cert: b.cert}
	var err error
	if v.Dir, err = b.subdir(name); err == nil {
		if v.GRPC, err = freePort(); err == nil {
			v.REST, err = freePort()
		}
	}
	return v, err
}

// startPeer writes the peer's configuration and runs it.
func (b *bench) startPeer(ctx context.Context, name string, v settings, s *scenario, args func(file string) []string) (*running, error) {
	command, err := find(name)
	if err != nil {
		return nil, err
	}
	file, err := v.write(name + ".conf")
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, nil, command, args(file)...)
	if err != nil {
		return nil, err
	}
	r := &running{process: p, address: local(v.GRPC)}
	if s.rest {
		r.address = local(v.REST)
	}
	if err := p.wait(ctx, func() bool { return answers(r.address) }); err != nil {
		p.stop()
		return nil, err
	}
	return r, nil
}

// write makes a file of the template of this name.
func (v settings) write(name string) (string, error) {
	file := filepath.Join(v.Dir, name)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	if err := templates.ExecuteTemplate(f, name, v); err != nil {
		_ = f.Close()
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return file, f.Close()
}

func startNginx(ctx context.Context, b *bench, s *scenario) (*running, error) {
	v, err := b.settings("nginx", s)
	if err != nil {
		return nil, err
	}
	if s.callout != "" {
		if v.Lua, err = luaModules(); err != nil {
			return nil, err
		}
		v.Callout, v.Body = s.callout, rewrittenJSON()
	}
	return b.startPeer(ctx, "nginx", v, s, func(file string) []string { return []string{"-p", v.Dir, "-c", file, "-e", "stderr"} })
}

// luaModules is where Debian's libnginx-mod-http-lua is.
func luaModules() (string, error) {
	const dir = "/usr/lib/nginx/modules"
	_, err := os.Stat(filepath.Join(dir, "ngx_http_lua_module.so"))
	return dir, err
}

func startHAProxy(ctx context.Context, b *bench, s *scenario) (*running, error) {
	v, err := b.settings("haproxy", s)
	if err != nil {
		return nil, err
	}
	return b.startPeer(ctx, "haproxy", v, s, func(file string) []string { return []string{"-db", "-f", file} })
}

func startNghttpx(ctx context.Context, b *bench, s *scenario) (*running, error) {
	v, err := b.settings("nghttpx", s)
	if err != nil {
		return nil, err
	}
	return b.startPeer(ctx, "nghttpx", v, s, func(file string) []string { return []string{"--conf=" + file} })
}
