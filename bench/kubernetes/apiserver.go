package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// server is an API server that serves lists and watches of a cluster that it makes up, as a real one does: in JSON and protobuf, with
// pages, with bookmarks, and with initial events in watches. It stores nothing but what has changed.
type server struct {
	cluster *cluster

	mu       sync.Mutex
	version  int                                  // guarded by mu
	watchers map[string]map[*watcher]bool         // guarded by mu; by resource
	changed  map[string]map[string]runtime.Object // guarded by mu; later versions of objects, by resource and key; a nil object is deleted
	log      map[string][]logged                  // guarded by mu; all events, by resource, for watches that go on

	requests sync.Map // number of requests (*atomic.Int64), by verb and resource
	bytes    atomic.Int64
}

// logged is an event with its version.
type logged struct {
	version int
	event   watch.Event
}

// watcher receives the events of one watch.
type watcher struct{ events chan watch.Event }

// resources are the paths of lists, with the kinds of their objects.
var resources = map[string]struct {
	name  string
	group schema.GroupVersion
	list  func() runtime.Object
}{
	"/api/v1/pods":       {"pods", corev1.SchemeGroupVersion, func() runtime.Object { return &corev1.PodList{} }},
	"/api/v1/nodes":      {"nodes", corev1.SchemeGroupVersion, func() runtime.Object { return &corev1.NodeList{} }},
	"/api/v1/namespaces": {"namespaces", corev1.SchemeGroupVersion, func() runtime.Object { return &corev1.NamespaceList{} }},
	"/apis/networking.k8s.io/v1/networkpolicies": {"networkpolicies", networkingv1.SchemeGroupVersion,
		func() runtime.Object { return &networkingv1.NetworkPolicyList{} }},
}

func newServer(c *cluster) *server {
	return &server{
		cluster: c, version: 1000, watchers: map[string]map[*watcher]bool{}, changed: map[string]map[string]runtime.Object{},
		log: map[string][]logged{},
	}
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res, ok := resources[r.URL.Path]
	switch {
	case ok && r.URL.Query().Get("watch") != "":
		s.count("watch " + res.name)
		s.watch(w, r, res.name, res.group)
	case ok:
		s.count("list " + res.name)
		s.list(w, r, res.name, res.group, res.list())
	case strings.Contains(r.URL.Path, "/endpointslices/"):
		s.count("get endpointslices")
		s.write(w, r, discoveryv1.SchemeGroupVersion,
			&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}})
	case r.Method == http.MethodPatch:
		s.count("patch nodes")
		s.write(w, r, corev1.SchemeGroupVersion, s.cluster.node(0))
	case strings.HasSuffix(r.URL.Path, "/events"):
		s.count("create events")
		s.write(w, r, corev1.SchemeGroupVersion, &corev1.Event{})
	default:
		http.NotFound(w, r)
	}
}

func (s *server) count(what string) {
	n, _ := s.requests.LoadOrStore(what, &atomic.Int64{})
	n.(*atomic.Int64).Add(1) //nolint:forcetypeassert // the only type in the map
}

// counts returns the number of requests, by verb and resource.
func (s *server) counts() map[string]int64 {
	out := map[string]int64{}
	s.requests.Range(func(k, v any) bool {
		out[k.(string)] = v.(*atomic.Int64).Load() //nolint:forcetypeassert // the only types in the map
		return true
	})
	return out
}

// encoding returns how a client wants to receive objects.
func encoding(r *http.Request) runtime.SerializerInfo {
	all := scheme.Codecs.SupportedMediaTypes()
	if strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		info, _ := runtime.SerializerInfoForMediaType(all, runtime.ContentTypeProtobuf)
		return info
	}
	info, _ := runtime.SerializerInfoForMediaType(all, runtime.ContentTypeJSON)
	return info
}

func (s *server) write(w http.ResponseWriter, r *http.Request, group schema.GroupVersion, o runtime.Object) {
	info := encoding(r)
	var body bytes.Buffer
	if err := scheme.Codecs.EncoderForVersion(info.Serializer, group).Encode(o, &body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.bytes.Add(int64(body.Len()))
	w.Header().Set("Content-Type", info.MediaType)
	_, _ = w.Write(body.Bytes())
}

// list serves a list, in pages where the client wants them and does not accept any version. A page of a real API server is one of etcd.
func (s *server) list(w http.ResponseWriter, r *http.Request, resource string, group schema.GroupVersion, list runtime.Object) {
	query := r.URL.Query()
	limit, _ := strconv.Atoi(query.Get("limit"))
	if query.Get("resourceVersion") == "0" {
		limit = 0
	}
	from, _ := strconv.Atoi(query.Get("continue"))
	objects := s.objects(resource)
	more := metav1.ListMeta{ResourceVersion: s.now()}
	if limit > 0 && from+limit < len(objects) {
		more.Continue, objects = strconv.Itoa(from+limit), objects[:from+limit]
	}
	objects = objects[from:]
	switch l := list.(type) {
	case *corev1.PodList:
		l.ListMeta, l.Items = more, items[corev1.Pod](objects)
	case *corev1.NodeList:
		l.ListMeta, l.Items = more, items[corev1.Node](objects)
	case *corev1.NamespaceList:
		l.ListMeta, l.Items = more, items[corev1.Namespace](objects)
	case *networkingv1.NetworkPolicyList:
		l.ListMeta, l.Items = more, items[networkingv1.NetworkPolicy](objects)
	}
	s.write(w, r, group, list)
}

// items makes objects, which must be of type *T.
func items[T any](objects []func() runtime.Object) (out []T) {
	for _, o := range objects {
		out = append(out, *any(o()).(*T)) //nolint:forcetypeassert // a resource has one type
	}
	return out
}

func (s *server) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strconv.Itoa(s.version)
}

// objects returns functions that make the present objects of a resource.
func (s *server) objects(resource string) []func() runtime.Object {
	s.mu.Lock()
	changed := map[string]runtime.Object{}
	for k, v := range s.changed[resource] {
		changed[k] = v
	}
	s.mu.Unlock()
	var out []func() runtime.Object
	for _, o := range s.cluster.objects(resource) {
		later, ok := changed[o.key]
		delete(changed, o.key)
		switch {
		case !ok:
			out = append(out, o.make)
		case later != nil:
			out = append(out, func() runtime.Object { return later })
		}
	}
	for _, later := range changed {
		if later != nil {
			out = append(out, func() runtime.Object { return later })
		}
	}
	return out
}

// send makes a change: it stores the object, and sends it to all watchers.
func (s *server) send(resource, key string, kind watch.EventType, o runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	if m, ok := o.(metav1.Object); ok {
		m.SetResourceVersion(strconv.Itoa(s.version))
	}
	if s.changed[resource] == nil {
		s.changed[resource] = map[string]runtime.Object{}
	}
	s.changed[resource][key] = o
	if kind == watch.Deleted {
		s.changed[resource][key] = nil
	}
	e := watch.Event{Type: kind, Object: o}
	s.log[resource] = append(s.log[resource], logged{s.version, e})
	for w := range s.watchers[resource] {
		w.events <- e
	}
}

// watch serves a watch until the client ends it.
func (s *server) watch(w http.ResponseWriter, r *http.Request, resource string, group schema.GroupVersion) {
	me := &watcher{events: make(chan watch.Event, 1<<16)}
	var initial []func() runtime.Object
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		initial = s.objects(resource)
	}
	s.mu.Lock()
	if s.watchers[resource] == nil {
		s.watchers[resource] = map[*watcher]bool{}
	}
	s.watchers[resource][me] = true
	version := strconv.Itoa(s.version)
	if since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion")); err == nil && initial == nil {
		for _, l := range s.log[resource] {
			if l.version > since {
				me.events <- l.event
			}
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers[resource], me)
	}()
	info := encoding(r)
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	if info.MediaType == runtime.ContentTypeJSON {
		w.Header().Set("Content-Type", info.MediaType)
	}
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush()
	inner := scheme.Codecs.EncoderForVersion(info.Serializer, group)
	frames := info.StreamSerializer.NewFrameWriter(w)
	outer := streaming.NewEncoder(frames, scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, group))
	send := func(e watch.Event) error {
		var body bytes.Buffer
		if err := inner.Encode(e.Object, &body); err != nil {
			return fmt.Errorf("encoding: %w", err)
		}
		s.bytes.Add(int64(body.Len()))
		return outer.Encode(&metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Raw: body.Bytes()}})
	}
	if err := s.stream(r.Context(), me, initial, version, resource, send, func() { _ = out.Flush() }); r.Context().Err() == nil {
		panic(fmt.Sprintf("kubernetes: serving a watch of %s: %v", resource, err)) // a fault of this package
	}
}

// stream sends the initial objects with their bookmark, and then events.
func (s *server) stream(ctx context.Context, me *watcher, initial []func() runtime.Object, version, resource string,
	send func(watch.Event) error, flush func()) error {
	if initial != nil {
		for _, o := range initial {
			if err := send(watch.Event{Type: watch.Added, Object: o()}); err != nil {
				return err
			}
		}
		end := bookmark(resource)
		meta := end.(metav1.Object) //nolint:forcetypeassert // all kinds are
		meta.SetResourceVersion(version)
		meta.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		if err := send(watch.Event{Type: watch.Bookmark, Object: end}); err != nil {
			return err
		}
		flush()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-me.events:
			if err := send(e); err != nil {
				return err
			}
			flush()
		}
	}
}

// bookmark returns an empty object of a resource.
func bookmark(resource string) runtime.Object {
	switch resource {
	case "pods":
		return &corev1.Pod{}
	case "nodes":
		return &corev1.Node{}
	case "namespaces":
		return &corev1.Namespace{}
	}
	return &networkingv1.NetworkPolicy{}
}

// watched reports whether a client watches all resources.
func (s *server) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range []string{"pods", "nodes", "namespaces", "networkpolicies"} {
		if len(s.watchers[resource]) == 0 {
			return false
		}
	}
	return true
}

// sortedCounts returns the counts as text, sorted.
func sortedCounts(counts map[string]int64) string {
	var parts []string
	for k, n := range counts {
		parts = append(parts, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
