from django.contrib import admin
from django.urls import include, path

from project import access, views

urlpatterns = [
    path("", views.home, name="home"),
    path("trigger", views.trigger, name="trigger"),
    path("runs/<str:run_id>", views.run, name="run"),
    path("runs/<str:run_id>/cancel", views.cancel, name="cancel"),
    path("runs/<str:run_id>/decision", views.decision, name="decision"),
    path("tags/<path:tag>", views.board, name="board"),
    path("tokens/all", access.token, name="token"),
    path("tokens/runs/<str:run_id>", access.token, name="token"),
    path("tokens/tags/<path:tag>", access.token, name="token"),
    path("admin/", admin.site.urls),
    path("", include("realtime_runs.urls")),
]
