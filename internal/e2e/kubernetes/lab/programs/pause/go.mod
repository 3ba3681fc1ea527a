module weftlab/pause

go 1.26.0
